"""What the chart makes of Secrets that are there already (it keeps them), and what it says to who installs it. Helm asks a cluster for both,
so this is one, as far as it asks.

    helm_secrets.py HELM CHART
"""
import base64
import http.server
import json
import os
import subprocess
import sys
import tempfile
import threading

import yaml

NAMES = {"demo-woolly-join": "join-secret", "demo-woolly-api-keys": "api-keys", "demo-woolly-admin": "admin-key"}


# What the chart renders by default, by the API that has it.
KINDS = {
    "v1": {"secrets": "Secret", "services": "Service", "serviceaccounts": "ServiceAccount", "pods": "Pod"},
    "apps/v1": {"statefulsets": "StatefulSet"},
    "policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
    "networking.k8s.io/v1": {"networkpolicies": "NetworkPolicy"},
}


def resources(version):
    """The kinds of an API, as the API lists them."""
    found = [{"name": name, "singularName": "", "namespaced": True, "kind": kind, "verbs": ["get", "list"]} for name, kind in KINDS[version].items()]
    return {"kind": "APIResourceList", "groupVersion": version, "resources": found}


def group(version):
    names = {"groupVersion": version, "version": version.split("/")[1]}
    return {"name": version.split("/")[0], "versions": [names], "preferredVersion": names}


class Cluster(http.server.BaseHTTPRequestHandler):
    """The API of Kubernetes with namespaces, and the Secrets in `secrets`."""

    secrets = {}

    def do_GET(self):
        path = self.path.split("?")[0].rstrip("/")
        groups = [version for version in KINDS if "/" in version]
        answers = {
            "/version": {"major": "1", "minor": "31", "gitVersion": "v1.31.0"},
            "/api": {"kind": "APIVersions", "versions": ["v1"]},
            "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group(version) for version in groups]},
            "/api/v1": resources("v1"),
            **{f"/apis/{version}": resources(version) for version in groups},
        }
        if path == "/api/v1/namespaces/llm/secrets":
            # Releases that helm has made.
            answers[path] = {"kind": "SecretList", "apiVersion": "v1", "metadata": {}, "items": []}
        folder, name = path.rsplit("/", 1)
        found = answers.get(path) or (self.secrets.get(name) if folder == "/api/v1/namespaces/llm/secrets" else None)
        missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404, "message": f"{path} not found"}
        body = json.dumps(found or missing).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def rendered(helm, chart, kubeconfig, *flags):
    """The Secrets of a rendering, by name."""
    command = [helm, "template", "demo", chart, "-n", "llm", "--dry-run=server", "--set", "adminKey.enabled=true", *flags]
    text = subprocess.run(command, env={**os.environ, "KUBECONFIG": kubeconfig}, check=True, capture_output=True, text=True).stdout
    return {thing["metadata"]["name"]: thing for thing in yaml.safe_load_all(text) if thing and thing["kind"] == "Secret"}


def notes(helm, chart, kubeconfig, *flags):
    """What `helm install` would say."""
    command = [helm, "install", "demo", chart, "-n", "llm", "--dry-run=client", "--disable-openapi-validation", "--output", "json", *flags]
    run = subprocess.run(command, env={**os.environ, "KUBECONFIG": kubeconfig}, check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)["info"]["notes"]


def values(secrets):
    return {name: base64.b64decode(secrets[name]["data"][key]).decode() for name, key in NAMES.items()}


def main(helm, chart):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Cluster)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    config = {"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "contexts": [context], "current-context": "c", "users": [{"name": "u", "user": {}}]}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(config, file)
        file.flush()
        first = rendered(helm, chart, file.name)
        made = values(first)
        assert all(len(text) == 48 and text.isalnum() for text in made.values()), "secrets are not as long as they should be"
        assert len(set(made.values())) == 3 and values(rendered(helm, chart, file.name)) != made, "secrets are not random"
        Cluster.secrets = first
        assert values(rendered(helm, chart, file.name)) == made, "an upgrade makes new secrets"
        given = "f" * 8 + "0123456789abcdef" * 2
        changed = values(rendered(helm, chart, file.name, "--set", f"joinSecret.value={given}"))
        assert changed == {**made, "demo-woolly-join": given}, "a secret that is given is not taken"
        Cluster.secrets = {}
        text = notes(helm, chart, file.name)
        assert "curl http://127.0.0.1:8080/v1/chat/completions -H \"Authorization: Bearer $KEY\"" in text, text
        assert "get secret demo-woolly-api-keys -o jsonpath='{.data.api-keys}'" in text and "everyone" not in text, text
        open_to_all = notes(helm, chart, file.name, "--set", "apiKeys.enabled=false")
        assert "$KEY" not in open_to_all and "everyone who reaches the service can use it" in open_to_all, open_to_all
    server.shutdown()
    print("secrets are made once: an upgrade keeps what the cluster has, and takes what is given; the notes have the first curl")


if __name__ == "__main__":
    main(*sys.argv[1:3])
