//! What the argument types cannot say about a module: what becomes of an interrupted attempt, and what
//! check mode does. `modules NAME` and the table in `playbooks/README.md` say the same.

/// Notes on one module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notes {
    /// Its short name.
    pub name: &'static str,
    /// What the next run does with a task that was started and never finished.
    pub recovery: &'static str,
    /// What check mode does with it.
    pub check_mode: &'static str,
}

const LOOKS: &str = "really looks";

const AS_COPY: &str = "as `copy`";

const NOTES: &[Notes] = &[
    Notes {
        name: "assert",
        recovery: "looks again",
        check_mode: LOOKS,
    },
    Notes {
        name: "command",
        recovery: "done where `creates` or `removes` tells so; otherwise *unknown*: you are asked, unless `done_when` is true. It counts as finished only when sync(2) has brought what it wrote to the disks",
        check_mode: "predicts where `creates` or `removes` tells that there is nothing to do; otherwise skipped",
    },
    Notes {
        name: "copy",
        recovery: "removes its half file, writes again; a file appears by rename, never in part",
        check_mode: "predicts",
    },
    Notes {
        name: "debug",
        recovery: "looks again",
        check_mode: LOOKS,
    },
    Notes {
        name: "directory_size",
        recovery: "looks again",
        check_mode: LOOKS,
    },
    Notes {
        name: "disk_space",
        recovery: "looks again",
        check_mode: LOOKS,
    },
    Notes {
        name: "docker_container",
        recovery: "brings the container in order, whatever was left",
        check_mode: "predicts; skipped where the image is not there yet",
    },
    Notes {
        name: "docker_container_copy_from",
        recovery: "removes its helper container and half files, copies again",
        check_mode: "predicts where the image is there; otherwise skipped",
    },
    Notes {
        name: "docker_container_exec",
        recovery: "*unknown*: you are asked, unless `done_when` is true",
        check_mode: "skipped",
    },
    Notes {
        name: "docker_image",
        recovery: "looks, and loads or pulls again: Docker shows whole images only",
        check_mode: "predicts",
    },
    Notes {
        name: "fail",
        recovery: "looks again",
        check_mode: LOOKS,
    },
    Notes {
        name: "file",
        recovery: "`absent`: done where the thing, told by device and inode, is in quarantine; otherwise brings the path in order again",
        check_mode: "predicts",
    },
    Notes {
        name: "get_url",
        recovery: "removes its half file, downloads again",
        check_mode: "predicts where a checksum or the file itself tells; otherwise skipped",
    },
    Notes {
        name: "apt",
        recovery: "lets dpkg finish what it was in the middle of, then installs the rest",
        check_mode: "predicts; with `autoremove` skipped",
    },
    Notes {
        name: "dnf",
        recovery: "installs the named packages anew that are there already, so that their scripts run to the end, then the rest",
        check_mode: "predicts; with `autoremove` skipped",
    },
    Notes {
        name: "group",
        recovery: "looks what is there, and does the rest",
        check_mode: "predicts",
    },
    Notes {
        name: "systemd_service",
        recovery: "looks what is there, and does the rest; `restarted` restarts again",
        check_mode: "predicts",
    },
    Notes {
        name: "user",
        recovery: "looks what is there, and does the rest",
        check_mode: "predicts",
    },
    Notes {
        name: "git",
        recovery: "removes its half clone and git's lock, then looks what is there, and does the rest",
        check_mode: "predicts",
    },
    Notes {
        name: "script",
        recovery: "as `command`",
        check_mode: "as `command`",
    },
    Notes {
        name: "unarchive",
        recovery: "unpacks again",
        check_mode: "predicts",
    },
    Notes {
        name: "blockinfile",
        recovery: AS_COPY,
        check_mode: "predicts",
    },
    Notes {
        name: "find",
        recovery: "looks again",
        check_mode: LOOKS,
    },
    Notes {
        name: "getent",
        recovery: "looks again",
        check_mode: LOOKS,
    },
    Notes {
        name: "include_vars",
        recovery: "reads again",
        check_mode: LOOKS,
    },
    Notes {
        name: "lineinfile",
        recovery: AS_COPY,
        check_mode: "predicts",
    },
    Notes {
        name: "meta",
        recovery: "leaves no record",
        check_mode: LOOKS,
    },
    Notes {
        name: "ping",
        recovery: "answers again",
        check_mode: LOOKS,
    },
    Notes {
        name: "replace",
        recovery: AS_COPY,
        check_mode: "predicts",
    },
    Notes {
        name: "setup",
        recovery: "looks again",
        check_mode: LOOKS,
    },
    Notes {
        name: "slurp",
        recovery: "reads again",
        check_mode: LOOKS,
    },
    Notes {
        name: "tempfile",
        recovery: "the name was journaled before: done where it is there, otherwise made under a new one",
        check_mode: "skipped",
    },
    Notes {
        name: "template",
        recovery: AS_COPY,
        check_mode: "predicts",
    },
    Notes {
        name: "move",
        recovery: "done where the source, told by device and inode, is at `dest`; *not done* where it is still at `src`; otherwise *unknown*. A half copy to another filesystem is completed: compared with the source chunk by chunk, what differs is copied again, then all of it verified",
        check_mode: "predicts",
    },
    Notes {
        name: "pause",
        recovery: "asks, or waits, again: an answer that is not in the journal was not given",
        check_mode: "skipped",
    },
    Notes {
        name: "postgresql_data_directory",
        recovery: "looks again",
        check_mode: LOOKS,
    },
    Notes {
        name: "postgresql_dump",
        recovery: "done where a file that it made is there with the SHA-256 noted beside it; otherwise the half file is removed and the dump made again; what was restored ahead of a dump that is not whole is dropped; a file that it has not made: *unknown*",
        check_mode: "predicts",
    },
    Notes {
        name: "postgresql_initdb",
        recovery: "removes its own `<path>.initializing` and its container, and begins again; done where the directory had got its name; *unknown* where something else is there",
        check_mode: "predicts where the directory is there; otherwise skipped",
    },
    Notes {
        name: "postgresql_ping",
        recovery: "asks again",
        check_mode: LOOKS,
    },
    Notes {
        name: "postgresql_query",
        recovery: "*unknown*: you are asked, unless `done_when` is true",
        check_mode: "skipped",
    },
    Notes {
        name: "postgresql_restore",
        recovery: "ends sessions that it left; done where the database carries its mark; otherwise its half database is dropped and the restore runs again; a filled database without its mark: *unknown*",
        check_mode: "predicts where the database is reached; otherwise skipped",
    },
    Notes {
        name: "postgresql_schema_history",
        recovery: "looks, and drops the schema where it is still there",
        check_mode: "predicts where the database is reached; otherwise skipped",
    },
    Notes {
        name: "postgresql_schema_version",
        recovery: "looks again",
        check_mode: LOOKS,
    },
    Notes {
        name: "postgresql_script",
        recovery: "ends sessions that it left; the row in `kaapana_agent.schema_history` tells: done, or rolled back and run again; with `transaction: false` and no row: *unknown*",
        check_mode: "predicts where the file and the database are reached; otherwise skipped",
    },
    Notes {
        name: "postgresql_select",
        recovery: "asks again",
        check_mode: LOOKS,
    },
    Notes {
        name: "postgresql_snapshot",
        recovery: "reads again",
        check_mode: LOOKS,
    },
    Notes {
        name: "postgresql_verify",
        recovery: "compares again",
        check_mode: LOOKS,
    },
    Notes {
        name: "privileges",
        recovery: "looks again",
        check_mode: LOOKS,
    },
    Notes {
        name: "set_fact",
        recovery: "sets it again",
        check_mode: LOOKS,
    },
    Notes {
        name: "shell",
        recovery: "as `command`",
        check_mode: "as `command`",
    },
    Notes {
        name: "stat",
        recovery: "looks again",
        check_mode: LOOKS,
    },
    Notes {
        name: "wait_for",
        recovery: "waits again",
        check_mode: LOOKS,
    },
    Notes {
        name: "k8s_cp",
        recovery: "removes its half files, compares by SHA-256 and copies what differs",
        check_mode: "predicts where the pod is there; otherwise skipped",
    },
    Notes {
        name: "k8s_exec",
        recovery: "*unknown*: you are asked, unless `done_when` is true",
        check_mode: "skipped",
    },
    Notes {
        name: "k8s_info",
        recovery: "looks, and waits, again",
        check_mode: LOOKS,
    },
    Notes {
        name: "k8s_rollout",
        recovery: "by the uids of the pods that were there before: all of them still there: *not done*; otherwise what was begun is ended, and waited for",
        check_mode: "predicts where the pods are there; otherwise skipped",
    },
    Notes {
        name: "ldap_attrs",
        recovery: "looks what is there, and changes the rest",
        check_mode: "predicts where the directory can be reached; otherwise skipped",
    },
    Notes {
        name: "ldap_data_directory",
        recovery: "looks again",
        check_mode: LOOKS,
    },
    Notes {
        name: "ldap_entry",
        recovery: "looks whether it is there",
        check_mode: "predicts where the directory can be reached; otherwise skipped",
    },
    Notes {
        name: "ldap_export",
        recovery: "done where the file has its name: it says by which attempt it was written; otherwise the half file is removed and the export made again; a file that it has not made: *unknown*",
        check_mode: "predicts",
    },
    Notes {
        name: "ldap_search",
        recovery: "asks again",
        check_mode: LOOKS,
    },
    Notes {
        name: "ldif_apply",
        recovery: "searches: records whose effect is there are passed over, the rest is applied. Nothing is undone: make an export first",
        check_mode: "predicts where the directory can be reached; otherwise skipped",
    },
    Notes {
        name: "ldif_verify",
        recovery: "looks again",
        check_mode: LOOKS,
    },
    Notes {
        name: "postgresql_difference",
        recovery: "removes its half file, compares again and writes the whole file",
        check_mode: "skipped: only comparing tells",
    },
    Notes {
        name: "postgresql_paths",
        recovery: "looks again",
        check_mode: LOOKS,
    },
    Notes {
        name: "archive",
        recovery: "removes its half archive, packs again",
        check_mode: "predicts a new archive; skipped where one is there, as only packing tells whether it would be the same",
    },
    Notes {
        name: "docker_container_info",
        recovery: "looks again",
        check_mode: LOOKS,
    },
    Notes {
        name: "docker_image_info",
        recovery: "looks again",
        check_mode: LOOKS,
    },
    Notes {
        name: "docker_network",
        recovery: "finishes what was begun: whoever was on a network that is made anew is on the new one",
        check_mode: "predicts",
    },
    Notes {
        name: "docker_volume",
        recovery: "looks what is there, and does the rest",
        check_mode: "predicts",
    },
    Notes {
        name: "postgresql_db",
        recovery: "ends sessions that it left, looks what is there, and does the rest",
        check_mode: "predicts where the server can be reached; otherwise skipped",
    },
    Notes {
        name: "postgresql_info",
        recovery: "asks again",
        check_mode: LOOKS,
    },
    Notes {
        name: "uri",
        recovery: "sends `GET`, `HEAD`, `PUT`, `DELETE` and the like again; any other method: *unknown*: you are asked, unless `done_when` is true",
        check_mode: "skipped, unless `creates` or `removes` tells that there is nothing to do",
    },
];

/// Finds a module's notes by its short name.
#[must_use]
pub fn notes(name: &str) -> Option<&'static Notes> {
    NOTES.iter().find(|notes| notes.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::Kind;
    use crate::modules::registry::all;

    #[test]
    fn every_module_says_what_becomes_of_an_interrupted_attempt_and_what_check_mode_does() {
        let readme = include_str!("../../../playbooks/README.md");
        for module in all() {
            let notes = notes(module.name)
                .unwrap_or_else(|| panic!("`{}` has no notes in reference.rs", module.name));
            let row = readme
                .lines()
                .find(|line| line.starts_with(&format!("| [`{}`]", module.name)))
                .unwrap_or_else(|| panic!("`{}` has no row in playbooks/README.md", module.name));
            assert!(
                row.ends_with(&format!("| {} |", notes.recovery)),
                "playbooks/README.md says otherwise: {row}"
            );
            if module.kind == Kind::ReadOnly {
                assert_eq!(notes.check_mode, LOOKS, "{}", module.name);
            }
        }
        assert_eq!(NOTES.len(), all().len(), "notes on a module that is gone");
    }
}
