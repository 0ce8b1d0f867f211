"""Writes what happened, one JSON object a line, to the file that CONFORMANCE_RECORD names."""

import json
import os

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
    name: record
    type: stdout
    short_description: records how each task and item ended
    description: What the conformance suite compares.
"""

# Tasks that only bring other tasks: the agent has no result of their own for them.
BRINGERS = ("include_tasks", "import_tasks", "include_role", "meta")


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "record"

    def __init__(self):
        super().__init__()
        self.file = open(os.environ["CONFORMANCE_RECORD"], "a", encoding="utf-8")
        self.included = {"ok": 0, "skipped": 0}

    def write(self, **what):
        self.file.write(json.dumps(what, sort_keys=True) + "\n")
        self.file.flush()

    def ended(self, result, status):
        action = result._task.action.rsplit(".", 1)[-1]
        if action in BRINGERS:
            # A file that is brought counts when it is brought, a word to the engine never does.
            if action == "include_tasks" and status == "skipped":
                self.included["skipped"] += 1
            return
        name = result._task.get_name()
        if name == result._task.action:
            name = action
        if result._task.loop and "results" in result._result and result._result["results"]:
            return
        self.write(task=name, status=status)

    def item(self, result, status):
        if result._task.action.rsplit(".", 1)[-1] in BRINGERS:
            return
        name = result._task.get_name()
        if name == result._task.action:
            name = result._task.action.rsplit(".", 1)[-1]
        self.write(task=name, status=status)

    def v2_playbook_on_include(self, included_file):
        self.included["ok"] += len(included_file._hosts)

    def v2_runner_on_ok(self, result):
        self.ended(result, "changed" if result.is_changed() else "ok")

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self.ended(result, "ignored" if ignore_errors else "failed")

    def v2_runner_on_skipped(self, result):
        self.ended(result, "skipped")

    def v2_runner_item_on_ok(self, result):
        self.item(result, "changed" if result.is_changed() else "ok")

    def v2_runner_item_on_failed(self, result):
        self.item(result, "ignored" if result._task.ignore_errors else "failed")

    def v2_runner_item_on_skipped(self, result):
        self.item(result, "skipped")

    def v2_playbook_on_stats(self, stats):
        recap = dict.fromkeys(("ok", "changed", "skipped", "failed", "rescued", "ignored"), 0)
        for host in stats.processed:
            summary = stats.summarize(host)
            for key, name in (("ok", "ok"), ("changed", "changed"), ("skipped", "skipped"),
                              ("failures", "failed"), ("rescued", "rescued"),
                              ("ignored", "ignored")):
                recap[name] += summary[key]
        recap["ok"] -= self.included["ok"]
        recap["skipped"] -= self.included["skipped"]
        self.write(recap=recap)
