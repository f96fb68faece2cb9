"""Checks what the chart renders: tests/scripts/helm_acceptance.sh runs this with every set of values.

    helm_checks.py objects FILE…     rendered objects: against the schemas of Kubernetes, and what they say of each other
    helm_checks.py refusals HELM CHART     values that must be refused, each with the message that says why

Objects of Kubernetes are validated against its own schemas, strictly, for the oldest and the newest version that the chart is for.
Those of LeaderWorkerSet, Prometheus and KEDA against helm_crds.json, which is ours and holds what the chart uses of them.
"""
import json
import pathlib
import re
import subprocess
import sys

import jsonschema
import kubernetes_validate
import yaml

HERE = pathlib.Path(__file__).parent
TOP = HERE.parent.parent
VERSIONS = ["1.30", "1.37"]
CRDS = json.loads((HERE / "helm_crds.json").read_text())["schemas"]
CONFIGURATION = (TOP / "docs/configuration.md").read_text()
METRICS = (TOP / "docs/metrics.md").read_text()
MEASURING = (TOP / "docs/measuring.md").read_text()


class Wrong(Exception):
    """What is wrong with a rendering, as a sentence."""


def need(condition, sentence):
    if not condition:
        raise Wrong(sentence)


def validate(thing):
    """One object against its schema."""
    version, kind = thing["apiVersion"], thing["kind"]
    crd = CRDS.get(f"{version}/{kind}")
    if crd is None:
        for kubernetes in VERSIONS:
            kubernetes_validate.validate(thing, kubernetes, strict=True)
        return
    jsonschema.validate(thing["spec"], crd)
    need(set(thing) == {"apiVersion", "kind", "metadata", "spec"}, f"{kind} has other parts than metadata and spec")
    if kind == "LeaderWorkerSet":
        template = thing["spec"]["leaderWorkerTemplate"]
        pod = {"apiVersion": "v1", "kind": "Pod", **template["workerTemplate"]}
        claims = [{"apiVersion": "v1", "kind": "PersistentVolumeClaim", **claim} for claim in template.get("volumeClaimTemplates", [])]
        for part in [pod, *claims]:
            validate(part)


def pods(things):
    """(name, pod, volume claims) of everything that makes pods."""
    for thing in things:
        spec = thing.get("spec", {})
        if thing["kind"] == "StatefulSet":
            yield thing["metadata"]["name"], spec["template"], spec.get("volumeClaimTemplates", [])
        elif thing["kind"] == "LeaderWorkerSet":
            template = spec["leaderWorkerTemplate"]
            yield thing["metadata"]["name"], template["workerTemplate"], template.get("volumeClaimTemplates", [])
        elif thing["kind"] == "Pod":
            yield thing["metadata"]["name"], thing, []


def selected(selector, things):
    """Names of those whose pods have these labels."""
    return [name for name, pod, _ in pods(things) if selector.items() <= pod["metadata"]["labels"].items()]


def check_names(things):
    seen = set()
    for thing in things:
        name = thing["metadata"]["name"]
        need((thing["kind"], name) not in seen, f"two objects are {thing['kind']} {name}")
        seen.add((thing["kind"], name))
        need(len(name) <= 52, f"{thing['kind']} {name}: pods of it would have too long a name")
        need(thing["metadata"]["namespace"] == "llm", f"{thing['kind']} {name} is in another namespace than the release")


def check_selectors(things):
    """Whatever selects pods selects those that it is for, and ports have the names that are asked for."""
    for thing in things:
        kind, name, spec = thing["kind"], thing["metadata"]["name"], thing.get("spec", {})
        if kind in ("Service", "PodDisruptionBudget", "NetworkPolicy", "StatefulSet"):
            selector = spec.get("podSelector") or spec["selector"]
            selector = selector.get("matchLabels", selector)
            found = selected(selector, things)
            need(len(found) == 1, f"{kind} {name} selects the pods of {found}")
        if kind == "Service":
            ports = [port for n, pod, _ in pods(things) if n == found[0] for c in pod["spec"]["containers"] for port in c["ports"]]
            for port in spec["ports"]:
                same = [p for p in ports if p["name"] == port["targetPort"] and p["protocol"] == port["protocol"]]
                need(same, f"Service {name}: no port {port['targetPort']} of {port['protocol']}")
            need(spec.get("clusterIP") != "None" or spec["publishNotReadyAddresses"], f"{name} hides pods that are not ready")
        if kind == "ServiceMonitor":
            labels = spec["selector"]["matchLabels"]
            absent = [e["key"] for e in spec["selector"]["matchExpressions"]]
            services = [s for s in things if s["kind"] == "Service" and labels.items() <= s["metadata"]["labels"].items()]
            services = [s for s in services if not any(key in s["metadata"]["labels"] for key in absent)]
            ports = [p["name"] for s in services for p in s["spec"]["ports"]]
            need(ports == ["http"], f"the ServiceMonitor finds the ports {ports}")
        if kind == "ScaledObject":
            target = spec["scaleTargetRef"]
            same = [t for t in things if (t["apiVersion"], t["kind"], t["metadata"]["name"]) == (target["apiVersion"], target["kind"], target["name"])]
            need(len(same) == 1 and "replicas" not in same[0]["spec"], "the ScaledObject's target is not there, or says its number itself")


def check_references(things, outside):
    """Secrets, claims and accounts are rendered, or the values name them as being there already."""
    there = {(t["kind"], t["metadata"]["name"]) for t in things}
    keys = {t["metadata"]["name"]: set(t["data"]) for t in things if t["kind"] == "Secret"}
    wanted = []
    for name, pod, claims in pods(things):
        spec = pod["spec"]
        wanted.append(("ServiceAccount", spec["serviceAccountName"]))
        volumes = {claim["metadata"]["name"] for claim in claims}
        for volume in spec.get("volumes", []):
            need(volume["name"] not in volumes, f"{name}: two volumes are called {volume['name']}")
            volumes.add(volume["name"])
            for part, kind, key in (("secret", "Secret", "secretName"), ("persistentVolumeClaim", "PersistentVolumeClaim", "claimName"), ("configMap", "ConfigMap", "name")):
                if part in volume:
                    wanted.append((kind, volume[part][key]))
        for container in spec["containers"]:
            mounts = [mount["name"] for mount in container.get("volumeMounts", [])]
            need(set(mounts) <= volumes, f"{name}: mounts {set(mounts) - volumes} without a volume")
            need(volumes <= set(mounts) | {"ca"}, f"{name}: volumes {volumes - set(mounts)} are not mounted")
            for variable in container.get("env", []):
                ref = variable.get("valueFrom", {}).get("secretKeyRef")
                if ref:
                    wanted.append(("Secret", ref["name"]))
                    need(ref["name"] not in keys or ref["key"] in keys[ref["name"]], f"{name}: {ref['name']} has no key {ref['key']}")
            # Files of Secrets that flags name are keys of them.
            for volume in spec.get("volumes", []):
                if volume.get("secret", {}).get("secretName") in keys:
                    path = next(m["mountPath"] for m in container["volumeMounts"] if m["name"] == volume["name"])
                    named = [a.split("=", 1)[1] for a in container["args"] if f"={path}/" in a]
                    need(named and all(n.removeprefix(path + "/") in keys[volume["secret"]["secretName"]] for n in named), f"{name}: {path} is not what a flag names")
    for kind, name in wanted:
        need((kind, name) in there or name in outside or name == "default", f"{kind} {name} is nowhere")


def flags_of(title):
    """The flags in the tables of a section of docs/configuration.md."""
    section = CONFIGURATION.split(f"## `{title}`", 1)[1].split("\n## ", 1)[0]
    return set(re.findall(r"^\| `(--[a-z-]+)", section, re.M)), set(re.findall(r"`(WOOLLY_[A-Z_]+)`", section))


def check_commands(things):
    """Flags and variables are in the documentation; probes, grace and rights are as meant."""
    documented = {"serve": flags_of("woolly-coordinator serve"), "join": flags_of("woolly-worker join")}
    bench = set(re.findall(r"--[a-z-]+", MEASURING)), {"WOOLLY_API_KEY"}
    count = 0
    for name, pod, _ in pods(things):
        spec, (container,) = pod["spec"], pod["spec"]["containers"]
        program, command, args = container["command"][0], container["args"][0], container["args"][1:]
        flags, variables = documented.get(command, bench)
        for arg in args:
            if not arg.startswith("--"):
                continue
            flag = arg.split("=", 1)[0]
            count += 1
            need(flag in flags, f"{name}: {flag} is not in the documentation of {command}")
        for variable in container.get("env", []):
            known = variable["name"] in variables or not variable["name"].startswith("WOOLLY_") or variable["name"] == "WOOLLY_LOG"
            need(known, f"{name}: {variable['name']} is not in the documentation of {command}")
        check_rights(name, spec, container)
        if command == "bench":
            continue
        check_life(name, spec, container, program)
        given = dict(arg.split("=", 1) for arg in args if "=" in arg)
        if command == "join":
            fields = {v["name"]: v.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath") for v in container["env"]}
            need("$(POD_IP)" in given["--advertise"] and fields["POD_IP"] == "status.podIP", f"{name} does not advertise its pod's address")
            service = args[0].split(".")[0]
            headless = [t for t in things if t["kind"] == "Service" and t["metadata"]["name"] == service]
            need(headless and headless[0]["spec"]["clusterIP"] == "None", f"{name} does not dial a headless service")
            limit = quantity(container["resources"]["limits"]["memory"])
            need(0.5 * limit < int(given["--memory"]) <= limit, f"{name}: --memory does not fit the limit")
    return count


def quantity(text):
    number, unit = re.fullmatch(r"([0-9.]+)(Ki|Mi|Gi|Ti)?", text).groups()
    return float(number) * {None: 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}[unit]


def check_rights(name, spec, container):
    """The `restricted` level of the Pod Security Standards, and a root that cannot be written to."""
    pod, own = spec["securityContext"], container["securityContext"]
    need(pod["runAsNonRoot"] and pod["runAsUser"] == 65532 and pod["seccompProfile"]["type"] == "RuntimeDefault", f"{name} may be root")
    need(own["capabilities"]["drop"] == ["ALL"] and not own["allowPrivilegeEscalation"] and own["readOnlyRootFilesystem"], f"{name} may more than it needs")
    need(spec["automountServiceAccountToken"] is False, f"{name} has a token of the API")


def check_life(name, spec, container, program):
    """Half an hour to start, then live and ready, and time to end."""
    startup, live, ready = (container[f"{kind}Probe"] for kind in ("startup", "liveness", "readiness"))
    need(startup["periodSeconds"] * startup["failureThreshold"] >= 1800, f"{name} has less than 30 minutes to start")
    need([p["exec"]["command"] for p in (startup, live, ready)] == [[program, "probe", "live"], [program, "probe", "live"], [program, "probe", "ready"]], f"{name}: other probes than live and ready")
    patience = next(int(a.split("=")[1][:-1]) for a in container["args"] if re.match(r"--(leave|shutdown)-timeout=", a))
    hook = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    need(spec["terminationGracePeriodSeconds"] >= patience + hook + 10, f"{name} is killed before it may have ended")


def check_sets(things):
    """Workers start together, one that dies takes nobody with it, and QUIC gets through."""
    for thing in things:
        kind, name, spec = thing["kind"], thing["metadata"]["name"], thing.get("spec", {})
        if kind == "StatefulSet" and name.endswith("-worker"):
            need(spec["podManagementPolicy"] == "Parallel", f"{name} starts one after the other")
        if kind == "StatefulSet" and name.endswith("-coordinator"):
            need(spec["replicas"] == 1, f"{name} is several")
        if kind == "LeaderWorkerSet":
            need(spec["leaderWorkerTemplate"]["restartPolicy"] == "None", f"{name} restarts all for one")
        if kind == "NetworkPolicy":
            both = spec["ingress"] + spec["egress"]
            ports = {(p["port"], p["protocol"]) for rule in both for p in rule["ports"]}
            quic = {(7400, "UDP"), (7401, "UDP")} if name.endswith("-worker") else {(7400, "UDP"), (8080, "TCP")}
            need(quic | {(53, "UDP"), (53, "TCP")} <= ports, f"NetworkPolicy {name} lets through only {ports}")
        if kind == "ScaledObject":
            for trigger in spec["triggers"]:
                for metric in re.findall(r"woolly_[a-z_]+", trigger["metadata"]["query"]):
                    need(f"`{metric}`" in METRICS, f"{metric} is no metric")


def texts(value):
    """All texts in a value: what they name is there already."""
    if isinstance(value, dict):
        return {t for part in value.values() for t in texts(part)}
    if isinstance(value, list):
        return {t for part in value for t in texts(part)}
    return {value} if isinstance(value, str) else set()


def objects(files):
    # A validator that takes everything would be none.
    broken = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"portz": []}}
    try:
        validate(broken)
    except kubernetes_validate.ValidationError:
        pass
    else:
        raise SystemExit("helm_checks.py: the schemas take an unknown field")
    for file in map(pathlib.Path, files):
        things = [thing for thing in yaml.safe_load_all(file.read_text()) if thing]
        values = yaml.safe_load((TOP / f"deploy/helm/woolly/ci/{file.stem}.yaml").read_text())
        try:
            for thing in things:
                validate(thing)
            check_names(things)
            check_selectors(things)
            check_references(things, texts(values))
            check_sets(things)
            count = check_commands(things)
        except (kubernetes_validate.ValidationError, jsonschema.ValidationError, Wrong) as error:
            where = f"{thing['kind']} {thing['metadata']['name']}: " if not isinstance(error, Wrong) else ""
            raise SystemExit(f"helm_checks.py: {file.stem}: {where}{getattr(error, 'message', error)}") from None
        own = [thing for thing in things if f"{thing['apiVersion']}/{thing['kind']}" not in CRDS]
        print(f"{file.stem}: {len(own)} objects fit Kubernetes {' and '.join(VERSIONS)}, {len(things) - len(own)} fit helm_crds.json; {count} flags are documented")


# (values, what the message must say)
REFUSALS = [
    ({"wrokers": {}}, "Additional property wrokers is not allowed"),
    ({"worker": {"replica": 2}}, "Additional property replica is not allowed"),
    ({"worker": {"replicas": 0}}, "worker.replicas: Must be greater than or equal to 1"),
    ({"worker": {"replicas": "two"}}, "worker.replicas: Invalid type. Expected: integer, given: string"),
    ({"worker": {"kind": "Deployment"}}, "worker.kind must be one of the following"),
    ({"worker": {"memory": {"kv": "12 GB"}}}, "worker.memory.kv: Does not match pattern"),
    ({"worker": {"resources": {"limits": {"memory": 8}}}}, "worker.resources.limits.memory: Invalid type"),
    ({"worker": {"antiAffinity": "hard"}}, "worker.antiAffinity must be one of the following"),
    ({"worker": {"extraArgs": ["threads 4"]}}, "worker.extraArgs.0: Does not match pattern"),
    ({"worker": {"podDisruptionBudget": {"maxUnavailable": 0}}}, "worker.podDisruptionBudget.maxUnavailable: Must"),
    ({"coordinator": {"waitForWorkers": 65}}, "coordinator.waitForWorkers: Must be less than or equal to 64"),
    ({"coordinator": {"objective": "speed"}}, "coordinator.objective must be one of the following"),
    ({"image": {"digest": "sha256:abc"}}, "image.digest: Does not match pattern"),
    ({"model": {"name": "Qwen/Qwen3-4B-GGUF"}}, "model.name: Does not match pattern"),
    ({"model": {"cacheType": "q4_0"}}, "model.cacheType must be one of the following"),
    ({"joinSecret": {"value": "secret"}}, "joinSecret.value: Does not match pattern"),
    ({"service": {"port": 70000}}, "service.port: Must be less than or equal to 65535"),
    ({"probes": {"startupSeconds": 5}}, "probes.startupSeconds: Must be greater than or equal to 60"),
    ({"autoscaling": {"prometheus": "prometheus:9090"}}, "autoscaling.prometheus: Does not match pattern"),
]
# What one value alone does not show: said by the templates.
CONTRADICTIONS = [
    ({"model": {"path": "a.gguf"}}, "name (a download) and path (a file of model.source) are both set"),
    ({"model": {"name": ""}}, "no model: set model.name"),
    ({"model": {"name": "", "path": "a.gguf"}}, "neither model.source.hostPath nor model.source.existingClaim says where"),
    ({"model": {"name": "", "path": "a.gguf", "source": {"hostPath": "/m", "existingClaim": "m"}}}, "hostPath and existingClaim are both set"),
    ({"worker": {"resources": {"requests": {"memory": "16Gi"}}}}, "requests.memory (17179869184 bytes) is more than limits.memory (8589934592)"),
    ({"worker": {"memory": {"allowance": "9Gi"}}}, "worker.memory.allowance (9663676416 bytes) is more than worker.resources.limits.memory"),
    ({"worker": {"memory": {"kv": "7Gi"}}}, "worker.memory.kv (7516192768 bytes) is more than what the worker may use in all"),
    ({"worker": {"memory": {"slice": "6Gi", "kv": "2Gi"}}}, "slice (6442450944), KV (2147483648) and overhead (536870912) need 9126805504"),
    ({"worker": {"memory": {"slice": "6.5Gi"}}}, "the worker may use 6871947673 bytes"),
    ({"coordinator": {"waitForWorkers": 3}}, "coordinator.waitForWorkers is 3, but there are 2 workers"),
    ({"worker": {"replicas": 65}}, "65 workers would be awaited, and a plan has at most 64 stages"),
    ({"autoscaling": {"enabled": True, "maxReplicas": 1}}, "autoscaling.maxReplicas is 1, less than the 2"),
    ({"ingress": {"enabled": True}}, "ingress.host: the name that clients use"),
]


def refusals(helm, chart):
    for values, message in REFUSALS + CONTRADICTIONS:
        run = subprocess.run([helm, "template", "demo", chart, "-n", "llm", "-f", "-"], input=yaml.safe_dump(values), capture_output=True, text=True)
        if run.returncode == 0:
            raise SystemExit(f"helm_checks.py: {values} is not refused")
        if message not in run.stderr:
            raise SystemExit(f"helm_checks.py: {values} is refused with\n  {run.stderr.strip()}\nand not with\n  {message}")
    print(f"{len(REFUSALS)} wrong values are refused by the schema, {len(CONTRADICTIONS)} contradictions by the templates, each with its message")


if __name__ == "__main__":
    {"objects": lambda: objects(sys.argv[2:]), "refusals": lambda: refusals(*sys.argv[2:4])}[sys.argv[1]]()
