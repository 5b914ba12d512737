#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks that the manifests of a directory parse and that what the agent needs of its host is in them.

Usage: check_manifests.py DIR     (exit 1 and one line for each fault)
"""
import ipaddress
import json
import pathlib
import sys

faults = []


def expect(holds, text):
    if not holds:
        faults.append(text)


def by(items, key, value):
    return next((item for item in items if item.get(key) == value), {})


def check_nodes(config, mesh):
    nodes = []
    for text in config.get("data", {}).values():
        try:
            nodes += json.loads(text).get("nodes", [])
        except json.JSONDecodeError:
            pass  # reported by who checks the files
    expect(nodes, "no nodes in the catalog")
    ranges = [ipaddress.ip_network(cidr) for node in nodes for cidr in node["cidrs"]]
    wide = [ipaddress.ip_network(cidr) for cidr in (mesh or "").split(",") if cidr]
    for i, one in enumerate(ranges):
        expect(any(one.version == w.version and one.subnet_of(w) for w in wide), f"{one} is in no mesh CIDR")
        for other in ranges[:i]:
            expect(not one.overlaps(other), f"{one} and {other} overlap")


def check_daemonset(documents):
    daemonset = by(documents, "kind", "DaemonSet")
    config = next((d for d in documents if d.get("metadata", {}).get("name") == "mesh-services"), {})
    pod = daemonset.get("spec", {}).get("template", {}).get("spec", {})
    expect(pod.get("hostPID") is True, "hostPID is not set")
    expect(pod.get("hostNetwork") is True, "hostNetwork is not set")
    agent = by(pod.get("containers", []), "name", "mesh-agent")
    environment = agent.get("env", [])
    for container in [agent] + pod.get("initContainers", []):
        name = container.get("name")
        expect(container.get("securityContext", {}).get("privileged") is True, f"{name} is not privileged")
        expect(container.get("image") == agent.get("image"), f"{name} has another image than mesh-agent")
    volumes = {volume["name"] for volume in pod.get("volumes", [])}
    mounts = {mount["mountPath"]: mount for mount in agent.get("volumeMounts", [])}
    for path in ("/sys/fs/bpf", "/sys/fs/cgroup", "/run/netns", "/run/mesh-agent"):
        expect(path in mounts, f"{path} is not mounted")
    for mount in mounts.values():
        expect(mount["name"] in volumes, f"volume {mount['name']} does not exist")
    expect(mounts.get("/run/netns", {}).get("mountPropagation") == "HostToContainer",
           "/run/netns is not mounted with HostToContainer")
    drain = int(by(environment, "name", "MESH_AGENT_DRAIN_TIMEOUT").get("value", "30"))
    expect(pod.get("terminationGracePeriodSeconds", 30) > drain, "the grace period is not above the drain time")
    expect(by(environment, "name", "MESH_AGENT_NODE_NAME").get("valueFrom") is not None, "no node name")
    # The same for all nodes, so it cannot be right for more than one: each takes its own from the nodes.
    expect(not by(environment, "name", "MESH_AGENT_NODE_CIDR"), "one node CIDR for all nodes")
    reference = by(environment, "name", "MESH_AGENT_MESH_CIDR").get("valueFrom", {}).get("configMapKeyRef", {})
    settings = next((d for d in documents if d.get("kind") == "ConfigMap"
                     and d.get("metadata", {}).get("name") == reference.get("name")), {})
    mesh = settings.get("data", {}).get(reference.get("key"))
    expect(mesh, "no mesh CIDR")
    check_nodes(config, mesh)
    update = daemonset.get("spec", {}).get("updateStrategy", {})
    surges = update.get("type") == "RollingUpdate" and update.get("rollingUpdate", {}).get("maxSurge", 0) != 0
    expect(surges, "an update does not start the new agent beside the old one (maxSurge)")
    expect(by(environment, "name", "MESH_AGENT_TAKEOVER").get("value") == "true", "the new agent does not take over")
    expect(not surges or not agent.get("ports"), "with maxSurge two pods need the same host ports")
    for probe in ("livenessProbe", "readinessProbe"):
        expect(agent.get(probe, {}).get("httpGet", {}).get("port") == 15020, f"no {probe} on 15020")
    selector = daemonset.get("spec", {}).get("selector", {}).get("matchLabels")
    labels = daemonset.get("spec", {}).get("template", {}).get("metadata", {}).get("labels", {})
    expect(selector and selector.items() <= labels.items(), "the selector does not match the labels")
    for name, text in config.get("data", {}).items():
        try:
            json.loads(text)
        except json.JSONDecodeError as error:
            expect(False, f"ConfigMap {name}: {error}")
    expect(config.get("data"), "no ConfigMap with services")


def main(directory):
    for path in sorted(directory.glob("**/*.json")):
        try:
            json.loads(path.read_text())
        except json.JSONDecodeError as error:
            faults.append(f"{path.name}: {error}")
    import yaml  # Debian: python3-yaml
    check_daemonset([d for d in yaml.safe_load_all((directory / "daemonset.yaml").read_text()) if d])
    for fault in faults:
        print(fault)
    return 1 if faults else 0


sys.exit(main(pathlib.Path(sys.argv[1])))
