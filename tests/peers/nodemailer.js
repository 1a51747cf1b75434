// nodemailer.js HOST PORT starttls|tls CA USER PASSWORD FROM TO FILE - submits a message as it is.
'use strict';
const fs = require('fs');
const nodemailer = require('nodemailer');

const [host, port, mode, ca, user, pass, from, to, file] = process.argv.slice(2);
const transport = nodemailer.createTransport({
    host, port: Number(port), secure: mode === 'tls', requireTLS: mode !== 'tls',
    auth: { user, pass }, tls: { ca: fs.readFileSync(ca), servername: 'localhost' },
});
transport.sendMail({ envelope: { from, to: [to] }, raw: fs.readFileSync(file) }, (error) => {
    if (error) {
        console.error(String(error));
        process.exit(1);
    }
    transport.close();
});
