//! The words of the playbook language, and what to do instead of Ansible's that are not part of it.

/// Keywords of a play.
pub(super) const PLAY: &[&str] = &[
    "name",
    "hosts",
    "vars",
    "vars_files",
    "environment",
    "become",
    "tags",
    "pre_tasks",
    "tasks",
    "post_tasks",
    "handlers",
    "module_defaults",
    "secrets",
    "gather_facts",
    "no_log",
    "connection",
    "import_playbook",
];

/// Keywords that tasks, blocks and includes share.
pub(super) const COMMON: &[&str] = &[
    "name",
    "when",
    "vars",
    "tags",
    "environment",
    "become",
    "ignore_errors",
    "check_mode",
    "no_log",
];

/// Keywords of a task beside the shared ones.
pub(super) const TASK: &[&str] = &[
    "id",
    "register",
    "loop",
    "with_items",
    "loop_control",
    "until",
    "retries",
    "delay",
    "timeout",
    "notify",
    "listen",
    "failed_when",
    "changed_when",
    "done_when",
    "undone_by",
    "args",
];

/// Keywords of a block beside the shared ones.
pub(super) const BLOCK: &[&str] = &["block", "rescue", "always", "services"];

/// Keywords that stand for another file's tasks.
pub(super) const INCLUDE: &[&str] = &[
    "include_tasks",
    "import_tasks",
    "ansible.builtin.include_tasks",
    "ansible.builtin.import_tasks",
    "ansible.legacy.include_tasks",
    "ansible.legacy.import_tasks",
];

/// Keywords that stand for another file's plays.
pub(super) const IMPORT_PLAYBOOK: &[&str] = &[
    "import_playbook",
    "ansible.builtin.import_playbook",
    "ansible.legacy.import_playbook",
];

/// Returns what to do instead of an Ansible keyword that is not supported.
pub(super) fn unsupported(keyword: &str) -> Option<&'static str> {
    let short = keyword
        .strip_prefix("ansible.builtin.")
        .or_else(|| keyword.strip_prefix("ansible.legacy."))
        .unwrap_or(keyword);
    Some(match short {
        "async" | "poll" => {
            "leave it out: long work shows its progress and survives a lost connection"
        }
        "delegate_to" | "delegate_facts" | "run_once" => {
            "give the task a play of its own with the right `hosts`"
        }
        "local_action" | "action" => "write the module's name as the key: `copy: {…}`",
        "roles" | "include_role" | "import_role" => {
            "use `import_tasks` with the file of the role's tasks"
        }
        "include" => "use `import_tasks` or `import_playbook`",
        "become_user" | "become_method" | "become_flags" | "become_exe" => {
            "only `become: true` is known: it asks for root"
        }
        "remote_user" | "port" => "put it into your SSH configuration",
        "vars_prompt" => "pass the value in with `-e`, or ask with `pause`",
        "serial" | "strategy" | "throttle" | "order" | "max_fail_percentage" => {
            "leave it out: hosts run side by side, `--forks` limits how many"
        }
        "any_errors_fatal" | "ignore_unreachable" | "force_handlers" => {
            "leave it out: one host's failure does not stop the others, and handlers run at the end"
        }
        "debugger" => "leave it out: `show` tells everything about a task afterwards",
        "diff" => "leave it out: differences are not shown yet",
        "collections" => "write the module's short or full name",
        "gather_subset" | "gather_timeout" | "fact_path" => "leave it out: facts are not gathered",
        "module_defaults" => "put `module_defaults` on the play",
        "ignore_errors" => "put it on the tasks or on a block",
        "check_mode" => "put it on the tasks or on a block, or use the option `--check`",
        "first_found" => "use `when` with `is exists`",
        "timeout" => "put `timeout` on the tasks",
        other if other.starts_with("with_") => "use `loop`, or `with_items`",
        _ => return None,
    })
}
