'use strict';
// Takes everything from everybody and sends it to one next hop: for the scoreboard only.

exports.register = function () {
    this.next_hop = this.config.get('to_sink.ini').main;
};

exports.hook_connect = function (next, connection) {
    connection.relaying = true;
    next();
};

exports.hook_rcpt = function (next) {
    next(OK);
};

exports.hook_get_mx = function (next) {
    next(OK, { exchange: this.next_hop.host, port: Number(this.next_hop.port), priority: 0 });
};
