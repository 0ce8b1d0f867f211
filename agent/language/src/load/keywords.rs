//! The words of the playbook language, and what to do instead of Ansible's that are not part of it.

/// Keywords of a play.
pub(super) const PLAY: &[&str] = &[
    "name",
    "hosts",
    "argument_spec",
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
    "site",
    "gather_facts",
    "no_log",
    "connection",
    "diff",
    "vars_prompt",
    "import_playbook",
];

/// Keywords of Ansible's that make no difference where there is one host, reached by nobody else: they are
/// accepted wherever Ansible has them.
pub(crate) const WITHOUT_EFFECT: &[&str] = &[
    "any_errors_fatal",
    "become_exe",
    "become_flags",
    "become_method",
    "collections",
    "ignore_unreachable",
    "max_fail_percentage",
    "order",
    "run_once",
    "serial",
    "throttle",
];

/// What to do instead of one of [`WITHOUT_EFFECT`] where there are several hosts and it would mean something.
pub(super) fn with_several_hosts(keyword: &str) -> Option<&'static str> {
    Some(match keyword {
        "any_errors_fatal" | "max_fail_percentage" => "put it on the play",
        "run_once" => "put the task into a play of its own, with `hosts: GROUP[0]`",
        "order" => "leave it out, and write the hosts into the inventory in this order",
        "throttle" => "use `serial` on the play, or the option `--forks`",
        "ignore_unreachable" => {
            "leave it out: the other hosts go on, and the exit code 4 says that only hosts were unreachable"
        }
        _ => return None,
    })
}

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
    "diff",
    "no_log",
];

/// Keywords of a task beside the shared ones.
pub(super) const TASK: &[&str] = &[
    "id",
    "register",
    "loop",
    "with_items",
    "with_list",
    "with_flattened",
    "with_dict",
    "with_nested",
    "with_cartesian",
    "with_together",
    "with_indexed_items",
    "with_sequence",
    "with_fileglob",
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
    "again_until",
    "args",
];

/// Keywords of a block beside the shared ones.
pub(super) const BLOCK: &[&str] = &["block", "rescue", "always", "services", "before_undo_of"];

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
        "delegate_to" | "delegate_facts" => {
            "the agent works on the host it runs on: only `delegate_to: localhost` is known"
        }
        "roles" | "include_role" | "import_role" => {
            "use `import_tasks` with the file of the role's tasks"
        }
        "include" => "use `import_tasks` or `import_playbook`",
        "become_user" => {
            "only `become_user: root` is known; for another user, start `sudo -u` in the command"
        }
        "remote_user" | "port" => "put it into your SSH configuration",
        "strategy" => "leave it out: tasks run one after the other",
        "force_handlers" => {
            "leave it out: a notification is journaled, and its handler runs in the run that comes to the end"
        }
        "debugger" => "leave it out: `show` tells everything about a task afterwards",
        "vars_prompt" => "put it on the play",
        "gather_subset" | "gather_timeout" | "fact_path" => {
            "use the module `setup` with these arguments"
        }
        "module_defaults" => "put `module_defaults` on the play or on a block",
        "ignore_errors" => "put it on the tasks or on a block",
        "check_mode" => "put it on the tasks or on a block, or use the option `--check`",
        "with_first_found" => "use `lookup('first_found', […])`",
        "with_subelements" => "use `loop` with the filter `subelements`",
        "with_lines" | "with_file" | "with_random_choice" | "with_inventory_hostnames" => {
            "use `loop` with a list; `lookup('file', …)` reads a file"
        }
        "timeout" => "put `timeout` on the tasks",
        other if other.starts_with("with_") => {
            "use `loop`, or `with_items`, `with_dict`, `with_nested`, `with_together`, `with_sequence`"
        }
        _ => return None,
    })
}
