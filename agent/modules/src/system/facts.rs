//! Facts about the host, by Ansible's names, read from `/proc`, `/etc` and system calls.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use jiff::Zoned;
use nix::unistd::{Gid, Uid, User};
use serde_json::{Map, Value, json};

/// The map of all facts, and the facts as variables.
pub const NAMES: &[&str] = &[
    "ansible_facts",
    "ansible_architecture",
    "ansible_date_time",
    "ansible_distribution",
    "ansible_distribution_file_path",
    "ansible_distribution_major_version",
    "ansible_distribution_release",
    "ansible_distribution_version",
    "ansible_domain",
    "ansible_effective_group_id",
    "ansible_effective_user_id",
    "ansible_env",
    "ansible_fqdn",
    "ansible_hostname",
    "ansible_is_chroot",
    "ansible_kernel",
    "ansible_kernel_version",
    "ansible_machine",
    "ansible_memfree_mb",
    "ansible_memory_mb",
    "ansible_memtotal_mb",
    "ansible_mounts",
    "ansible_nodename",
    "ansible_os_family",
    "ansible_pkg_mgr",
    "ansible_processor",
    "ansible_processor_cores",
    "ansible_processor_count",
    "ansible_processor_nproc",
    "ansible_processor_threads_per_core",
    "ansible_processor_vcpus",
    "ansible_real_group_id",
    "ansible_real_user_id",
    "ansible_service_mgr",
    "ansible_swapfree_mb",
    "ansible_swaptotal_mb",
    "ansible_system",
    "ansible_uptime_seconds",
    "ansible_user_dir",
    "ansible_user_gecos",
    "ansible_user_gid",
    "ansible_user_id",
    "ansible_user_shell",
    "ansible_user_uid",
    "ansible_userspace_architecture",
    "ansible_userspace_bits",
];

/// Gathers all facts; names without `ansible_`. `environment` is what tasks add to the agent's own.
pub(super) fn gather(environment: &BTreeMap<String, String>) -> Map<String, Value> {
    let mut facts = Map::new();
    let parts = [
        names(),
        distribution(),
        processors(),
        memory(),
        user(),
        managers(),
    ];
    for part in parts {
        if let Value::Object(part) = part {
            facts.extend(part);
        }
    }
    facts.insert("mounts".into(), mounts());
    facts.insert("date_time".into(), time(&Zoned::now()));
    // What programs that tasks start will see; nothing is decided by it here.
    let mut env: Map<String, Value> = std::env::vars_os()
        .map(|(name, value)| {
            let name = name.to_string_lossy().into_owned();
            (name, value.to_string_lossy().into_owned().into())
        })
        .collect();
    let added = environment
        .iter()
        .map(|(name, value)| (name.clone(), value.clone().into()));
    env.extend(added);
    facts.insert("env".into(), env.into());
    facts.sort_keys();
    facts
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn names() -> Value {
    let uname = nix::sys::utsname::uname();
    let text = |part: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
        uname
            .as_ref()
            .map(|uname| part(uname).to_string_lossy().into_owned())
            .unwrap_or_default()
    };
    let node = text(nix::sys::utsname::UtsName::nodename);
    let machine = text(nix::sys::utsname::UtsName::machine);
    let host = node.split('.').next().unwrap_or_default().to_owned();
    let fqdn = full_name(&node);
    let domain = fqdn
        .split_once('.')
        .map_or("", |(_, domain)| domain)
        .to_owned();
    let uptime = read("/proc/uptime");
    let uptime = uptime
        .split('.')
        .next()
        .and_then(|text| text.parse::<u64>().ok());
    let bits = if cfg!(target_pointer_width = "64") {
        "64"
    } else {
        "32"
    };
    json!({
        "hostname": host,
        "nodename": node,
        "fqdn": fqdn,
        "domain": domain,
        "kernel": text(nix::sys::utsname::UtsName::release),
        "kernel_version": text(nix::sys::utsname::UtsName::version),
        "system": text(nix::sys::utsname::UtsName::sysname),
        "machine": machine,
        "architecture": machine,
        "userspace_architecture": machine,
        "userspace_bits": bits,
        "uptime_seconds": uptime,
    })
}

/// The host's full name, as far as `/etc/hosts` knows it: nobody is asked over a network.
fn full_name(node: &str) -> String {
    if node.contains('.') {
        return node.to_owned();
    }
    for line in read("/etc/hosts").lines() {
        let line = line.split('#').next().unwrap_or_default();
        let names: Vec<&str> = line.split_whitespace().skip(1).collect();
        if names.contains(&node)
            && let Some(full) = names.iter().find(|name| name.contains('.'))
        {
            return (*full).to_owned();
        }
    }
    node.to_owned()
}

/// `KEY=value` lines of a file such as `/etc/os-release`.
fn assignments(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.trim().split_once('='))
        .map(|(key, value)| {
            let value = value.trim().trim_matches(['"', '\'']);
            (key.to_owned(), value.to_owned())
        })
        .collect()
}

fn distribution() -> Value {
    let release = assignments(&read("/etc/os-release"));
    let word = |key: &str| release.get(key).cloned().unwrap_or_default();
    let id = word("ID");
    let (name, family) = match id.as_str() {
        "debian" => ("Debian", "Debian"),
        "ubuntu" => ("Ubuntu", "Debian"),
        "linuxmint" => ("Linux Mint", "Debian"),
        "kali" => ("Kali", "Debian"),
        "raspbian" => ("Debian", "Debian"),
        "rhel" => ("RedHat", "RedHat"),
        "centos" => ("CentOS", "RedHat"),
        "rocky" => ("Rocky", "RedHat"),
        "almalinux" => ("AlmaLinux", "RedHat"),
        "fedora" => ("Fedora", "RedHat"),
        "ol" => ("OracleLinux", "RedHat"),
        "amzn" => ("Amazon", "RedHat"),
        "sles" => ("SLES", "Suse"),
        "opensuse-leap" => ("openSUSE Leap", "Suse"),
        "opensuse-tumbleweed" => ("openSUSE Tumbleweed", "Suse"),
        "alpine" => ("Alpine", "Alpine"),
        "arch" => ("Archlinux", "Archlinux"),
        _ => ("", ""),
    };
    let mut version = word("VERSION_ID");
    // Debian's own file knows the point release.
    let point = read("/etc/debian_version").trim().to_owned();
    if id == "debian" && point.starts_with(|c: char| c.is_ascii_digit()) {
        version = point;
    }
    let major = version.split('.').next().unwrap_or_default().to_owned();
    let (name, family) = match name {
        "" => (word("NAME"), word("ID_LIKE")),
        name => (name.to_owned(), family.to_owned()),
    };
    let codename = release.get("VERSION_CODENAME").cloned();
    json!({
        "distribution": name,
        "distribution_version": version,
        "distribution_major_version": major,
        "distribution_release": codename.unwrap_or_else(|| "NA".into()),
        "distribution_file_path": "/etc/os-release",
        "os_family": family,
    })
}

fn processors() -> Value {
    let mut listed = Vec::new();
    let (mut sockets, mut count) = (std::collections::BTreeSet::new(), 0_u64);
    let (mut cores, mut siblings) = (1_u64, 1_u64);
    for line in read("/proc/cpuinfo").lines() {
        let Some((key, value)) = line.split_once(':') else {
            continue;
        };
        let value = value.trim();
        match key.trim() {
            "processor" => {
                count += 1;
                listed.push(value.to_owned());
            }
            "vendor_id" | "model name" => listed.push(value.to_owned()),
            "physical id" => {
                sockets.insert(value.to_owned());
            }
            "cpu cores" => cores = value.parse().unwrap_or(1),
            "siblings" => siblings = value.parse().unwrap_or(1),
            _ => {}
        }
    }
    let sockets = if sockets.is_empty() {
        count
    } else {
        sockets.len() as u64
    };
    let threads = siblings.checked_div(cores).unwrap_or(1).max(1);
    let usable = std::thread::available_parallelism().map_or(count, |n| n.get() as u64);
    json!({
        "processor": listed,
        "processor_count": sockets,
        "processor_cores": cores,
        "processor_threads_per_core": threads,
        "processor_vcpus": threads * sockets * cores,
        "processor_nproc": usable,
    })
}

fn memory() -> Value {
    let mut kib: BTreeMap<String, u64> = BTreeMap::new();
    for line in read("/proc/meminfo").lines() {
        if let Some((key, value)) = line.split_once(':') {
            let number = value
                .split_whitespace()
                .next()
                .and_then(|text| text.parse().ok());
            kib.insert(key.to_owned(), number.unwrap_or(0));
        }
    }
    let mb = |key: &str| kib.get(key).copied().unwrap_or(0) / 1024;
    let (total, free) = (mb("MemTotal"), mb("MemFree"));
    let kept = |key: &str| kib.get(key).copied().unwrap_or(0);
    let without_cache = (kept("MemFree") + kept("Cached") + kept("Buffers")) / 1024;
    let (swap, swap_free) = (mb("SwapTotal"), mb("SwapFree"));
    json!({
        "memtotal_mb": total,
        "memfree_mb": free,
        "swaptotal_mb": swap,
        "swapfree_mb": swap_free,
        "memory_mb": {
            "real": {"total": total, "used": total.saturating_sub(free), "free": free},
            "nocache": {"free": without_cache, "used": total.saturating_sub(without_cache)},
            "swap": {
                "total": swap,
                "free": swap_free,
                "used": swap.saturating_sub(swap_free),
                "cached": mb("SwapCached"),
            },
        },
    })
}

fn user() -> Value {
    let (real, effective) = (Uid::current(), Uid::effective());
    let user = User::from_uid(effective).ok().flatten();
    let mut told = json!({
        "user_uid": effective.as_raw(),
        "user_gid": user.as_ref().map(|user| user.gid.as_raw()),
        "user_id": user.as_ref().map_or_else(|| effective.to_string(), |user| user.name.clone()),
        "real_user_id": real.as_raw(),
        "effective_user_id": effective.as_raw(),
        "real_group_id": Gid::current().as_raw(),
        "effective_group_id": Gid::effective().as_raw(),
        "is_chroot": is_chroot(),
    });
    if let Some(user) = user {
        told["user_dir"] = json!(user.dir);
        told["user_shell"] = json!(user.shell);
        told["user_gecos"] = json!(user.gecos.to_string_lossy());
    }
    told
}

/// Whether this process sees another root than the first process does.
fn is_chroot() -> bool {
    use std::os::unix::fs::MetadataExt;
    let of = |path: &str| fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    match (of("/"), of("/proc/1/root/.")) {
        (Ok(ours), Ok(first)) => ours != first,
        _ => false,
    }
}

fn managers() -> Value {
    let there = |path: &&(&str, &str)| Path::new(path.0).exists();
    let packages = [
        ("/usr/bin/apt-get", "apt"),
        ("/usr/bin/dnf5", "dnf5"),
        ("/usr/bin/dnf", "dnf"),
        ("/usr/bin/yum", "yum"),
        ("/usr/bin/zypper", "zypper"),
        ("/sbin/apk", "apk"),
        ("/usr/bin/pacman", "pacman"),
    ];
    let packages = packages
        .iter()
        .find(there)
        .map_or("unknown", |(_, name)| name);
    let first = read("/proc/1/comm").trim().to_owned();
    let services = match first.as_str() {
        _ if Path::new("/run/systemd/system").is_dir() => "systemd".to_owned(),
        "init" | "" => "service".to_owned(),
        other => other.to_owned(),
    };
    json!({"pkg_mgr": packages, "service_mgr": services})
}

fn mounts() -> Value {
    let mut listed = Vec::new();
    for line in read("/proc/self/mounts").lines() {
        let mut words = line.split(' ');
        let (Some(device), Some(mount), Some(kind), Some(options)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            continue;
        };
        // As Ansible, what is on a disk, a network or another tree.
        if !device.starts_with('/') && !device.contains(":/") && !kind.starts_with("fuse.") {
            continue;
        }
        let mount = mount.replace(r"\040", " ");
        let mut told = json!({
            "mount": mount, "device": device, "fstype": kind, "options": options,
        });
        if let Ok(sizes) = rustix::fs::statvfs(mount.as_str()) {
            told["block_size"] = sizes.f_bsize.into();
            told["block_total"] = sizes.f_blocks.into();
            told["block_available"] = sizes.f_bavail.into();
            told["block_used"] = sizes.f_blocks.saturating_sub(sizes.f_bavail).into();
            told["size_total"] = (sizes.f_frsize * sizes.f_blocks).into();
            told["size_available"] = (sizes.f_frsize * sizes.f_bavail).into();
            told["inode_total"] = sizes.f_files.into();
            told["inode_available"] = sizes.f_favail.into();
            told["inode_used"] = sizes.f_files.saturating_sub(sizes.f_favail).into();
        }
        listed.push(told);
    }
    listed.into()
}

fn time(now: &Zoned) -> Value {
    let utc = now.timestamp();
    let form = |form: &str| now.strftime(form).to_string();
    json!({
        "year": form("%Y"), "month": form("%m"), "day": form("%d"),
        "hour": form("%H"), "minute": form("%M"), "second": form("%S"),
        "weekday": form("%A"), "weekday_number": form("%w"), "weeknumber": form("%W"),
        "date": form("%Y-%m-%d"), "time": form("%H:%M:%S"),
        "epoch": utc.as_second().to_string(),
        "epoch_int": utc.as_second().to_string(),
        "tz": form("%Z"), "tz_offset": form("%z"),
        "iso8601": utc.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "iso8601_micro": utc.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
        "iso8601_basic": form("%Y%m%dT%H%M%S%6f"),
        "iso8601_basic_short": form("%Y%m%dT%H%M%S"),
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn facts_agree_with_the_hosts_own_programs_and_every_name_is_known() {
        let facts = gather(&BTreeMap::new());
        let run = |program: &str, arguments: &[&str]| {
            let out = Command::new(program)
                .args(arguments)
                .output()
                .expect("runs");
            String::from_utf8_lossy(&out.stdout).trim().to_owned()
        };
        assert_eq!(facts["kernel"], run("uname", &["-r"]));
        assert_eq!(facts["architecture"], run("uname", &["-m"]));
        assert_eq!(facts["nodename"], run("uname", &["-n"]));
        assert_eq!(facts["user_id"], run("id", &["-un"]));
        assert_eq!(facts["processor_nproc"].to_string(), run("nproc", &[]));
        let named: Vec<String> = facts.keys().map(|name| format!("ansible_{name}")).collect();
        for name in &named {
            assert!(NAMES.contains(&name.as_str()), "{name} is not in the list");
        }
    }
}
