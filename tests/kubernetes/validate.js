// validate.js - reads a JSON list of Kubernetes objects from standard input and validates each with
// the schema of its kind (npm: kubernetes-models and its relatives). Prints what is wrong, and a
// kind that has no schema; exit status 1 then.
'use strict';

const FAMILIES = [
    [/\.cert-manager\.io$|^cert-manager\.io$/, '@kubernetes-models/cert-manager'],
    [/^monitoring\.coreos\.com$/, '@kubernetes-models/prometheus-operator'],
];

function moduleOf(apiVersion, kind) {
    const [group, version] = apiVersion.includes('/') ? apiVersion.split('/') : ['', apiVersion];
    const family = FAMILIES.find(([pattern]) => pattern.test(group));
    if (family)
        return `${family[1]}/${group}/${version}/${kind}`;
    return `kubernetes-models/${group ? group + '/' : ''}${version}/${kind}`;
}

let wrong = 0;
for (const object of JSON.parse(require('fs').readFileSync(0, 'utf8'))) {
    const name = `${object.kind} ${object.metadata && object.metadata.name}`;
    try {
        const Model = require(moduleOf(object.apiVersion, object.kind))[object.kind];
        new Model(object).validate();
    } catch (error) {
        wrong++;
        console.log(`${name}: ${error.message}`);
    }
}
process.exit(wrong ? 1 : 0);
