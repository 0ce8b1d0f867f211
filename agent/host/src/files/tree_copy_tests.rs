//! A tree with everything in it, copied; `stat`-like comparison by the walk of the verifier and by hand.

use lab::tree::make_tree;

use super::*;

#[test]
fn a_copy_keeps_all_that_the_source_has() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    make_tree(&from);
    let name = "user.test";
    let flags = rustix::fs::XattrFlags::empty();
    let xattr = rustix::fs::lsetxattr(from.join("base/1/small"), name, b"value", flags).is_ok();
    let ctx = HostContext::for_tests(dir.path());
    let copied = copy_tree(&from, &to, &ctx).expect("copied");
    assert_eq!(copied.size, tree_size(&to, &ctx).expect("size"));
    assert_eq!((copied.size.files, copied.size.directories), (6, 3));

    let small = fs::metadata(to.join("base/1/small")).expect("stat");
    assert_eq!(
        (small.uid(), small.gid(), mode_of(&small)),
        (999, 998, 0o4751)
    );
    assert_eq!(
        (small.mtime(), small.mtime_nsec()),
        (1_000_000_000, 123_456_789)
    );
    assert_eq!(
        small.ino(),
        fs::metadata(to.join("twin")).expect("stat").ino()
    );
    assert_eq!(
        fs::metadata(to.join("base")).expect("stat").mtime(),
        1_000_000_000
    );
    assert_eq!(
        fs::symlink_metadata(to.join("link")).expect("stat").uid(),
        70
    );
    assert_eq!(
        fs::read_link(to.join("dangling")).expect("link"),
        Path::new("/nowhere")
    );
    let sparse = fs::metadata(to.join("sparse")).expect("stat");
    assert_eq!(sparse.len(), (64 << 20) + 3);
    assert!(sparse.blocks() * 512 < 1 << 20, "holes stay holes");
    if xattr {
        let mut value = [0; 16];
        let length = rustix::fs::lgetxattr(to.join("base/1/small"), name, &mut value[..]);
        assert_eq!(&value[..length.expect("there")], b"value");
    }
}

#[test]
fn a_source_that_changes_under_the_copy_is_noticed() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    make_tree(&from);
    let mut ctx = HostContext::for_tests(dir.path());
    let victim = from.join("base/1/small");
    let once = std::sync::Once::new();
    // The first figure comes while the copy is running.
    ctx.progress = crate::progress::Progress::new(
        move |done, total, _, _| {
            if total.is_some_and(|total| done * 2 > total) {
                once.call_once(|| fs::write(&victim, "CONTENT").expect("write"));
            }
        },
        |_| {},
    );
    let error = copy_tree(&from, &to, &ctx).expect_err("changed");
    assert!(error.to_string().contains("changed meanwhile"), "{error}");
}

#[test]
fn a_copy_that_is_cancelled_says_so() {
    let dir = tempfile::tempdir().expect("temp dir");
    make_tree(&dir.path().join("from"));
    let ctx = HostContext::for_tests(dir.path());
    ctx.cancel.cancel();
    let stopped = copy_tree(&dir.path().join("from"), &dir.path().join("to"), &ctx);
    assert!(matches!(stopped, Err(ModuleError::Cancelled)));
}
