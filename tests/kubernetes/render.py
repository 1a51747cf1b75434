"""What `kubectl kustomize DIR` prints, for the part of kustomize that deploy/kubernetes uses:
resources, components, strategic merge patches by path, configMapGenerator of files without a name
suffix, namespace, images. Anything else is an error, so that nothing is left out in silence. Where
a kubectl is there, tests/system/test_kubernetes.py holds both together."""
import os

import yaml

KNOWN = {"apiVersion", "kind", "resources", "components", "patches", "configMapGenerator",
         "generatorOptions", "namespace", "images"}


def documents(path):
    with open(path, encoding="utf-8") as file:
        return [d for d in yaml.safe_load_all(file) if d]


def merged(old, new):
    """A strategic merge: maps by key, lists of named things by name, other lists replaced."""
    if isinstance(old, dict) and isinstance(new, dict):
        out = dict(old)
        for key, value in new.items():
            if value is None:
                out.pop(key, None)
            else:
                out[key] = merged(old[key], value) if key in old else value
        return out
    if isinstance(old, list) and isinstance(new, list) and new and \
            all(isinstance(x, dict) and "name" in x for x in old + new):
        out = list(old)
        for item in new:
            at = next((i for i, x in enumerate(out) if x["name"] == item["name"]), None)
            if at is None:
                out.insert(0, item)
            else:
                out[at] = merged(out[at], item)
        return out
    return new


def identity(thing):
    return thing["apiVersion"], thing["kind"], thing["metadata"]["name"]


def patch(objects, path):
    for change in documents(path):
        found = [i for i, o in enumerate(objects) if identity(o) == identity(change)]
        if len(found) != 1:
            raise ValueError(f"{path}: nothing is called {identity(change)}")
        objects[found[0]] = merged(objects[found[0]], change)


def generated(folder, spec, options):
    if set(spec) != {"name", "files"} or options != {"disableNameSuffixHash": True}:
        raise ValueError(f"{folder}: configMapGenerator: {spec}")
    data = {}
    for name in spec["files"]:
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            data[name] = file.read()
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": spec["name"]},
            "data": data}


def with_images(thing, images):
    if isinstance(thing, dict):
        return {k: renamed(v, images) if k == "image" and isinstance(v, str)
                else with_images(v, images) for k, v in thing.items()}
    return [with_images(x, images) for x in thing] if isinstance(thing, list) else thing


def renamed(image, images):
    for i in images:
        if image == i["name"]:
            return f"{i.get('newName', image)}:{i['newTag']}"
    return image


def collect(folder, objects):
    with open(os.path.join(folder, "kustomization.yaml"), encoding="utf-8") as file:
        k = yaml.safe_load(file)
    unknown = set(k) - KNOWN
    if unknown:
        raise ValueError(f"{folder}: {unknown} is not known here")
    for name in k.get("resources", []):
        path = os.path.join(folder, name)
        if os.path.isdir(path):
            collect(path, objects)
        else:
            objects.extend(documents(path))
    for spec in k.get("configMapGenerator", []):
        objects.append(generated(folder, spec, k.get("generatorOptions")))
    for name in k.get("components", []):
        collect(os.path.join(folder, name), objects)
    for p in k.get("patches", []):
        patch(objects, os.path.join(folder, p["path"]))
    for i, o in enumerate(objects):
        objects[i] = with_images(o, k.get("images", []))
        if "namespace" in k:
            objects[i]["metadata"] = dict(objects[i]["metadata"], namespace=k["namespace"])
    return objects


def render(folder):
    return collect(folder, [])
