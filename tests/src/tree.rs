//! A tree with everything that a data directory may hold.

use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt, lchown, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

/// Size of its largest file.
const LARGE_BYTES: usize = 3 * 1024 * 1024 + 5;

/// Makes files of several sizes and owners, links of both kinds, a pipe and a sparse file.
///
/// # Panics
/// Where the machine does not let it: root is needed.
pub fn make_tree(root: &Path) {
    fs::create_dir_all(root.join("base/1")).expect("mkdir");
    fs::write(root.join("base/1/small"), "content").expect("write");
    fs::write(root.join("base/large"), vec![7; LARGE_BYTES]).expect("write");
    fs::hard_link(root.join("base/1/small"), root.join("twin")).expect("link");
    symlink("base/1/small", root.join("link")).expect("link");
    symlink("/nowhere", root.join("dangling")).expect("link");
    let made = Command::new("mkfifo")
        .arg("--mode=0640")
        .arg(root.join("fifo"))
        .status();
    assert!(made.expect("mkfifo").success());
    let sparse = File::create(root.join("sparse")).expect("create");
    sparse.write_all_at(b"end", 64 << 20).expect("write");
    lchown(root.join("base/1/small"), Some(999), Some(998)).expect("chown");
    lchown(root.join("link"), Some(70), Some(70)).expect("chown");
    for (name, mode) in [("base/1/small", 0o4751), ("base", 0o700)] {
        fs::set_permissions(root.join(name), Permissions::from_mode(mode)).expect("chmod");
    }
    let old = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    let times = FileTimes::new().set_accessed(old).set_modified(old);
    for name in ["base/1/small", "base"] {
        File::open(root.join(name))
            .and_then(|file| file.set_times(times))
            .expect("times");
    }
}
