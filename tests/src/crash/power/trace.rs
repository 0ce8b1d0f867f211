//! Reads what `strace -f -y -xx` wrote: the calls that change files or sync them, in their order.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::error::LabError;

/// What is traced.
pub(super) const CALLS: &str = "openat,open,creat,write,pwrite64,writev,pwritev,lseek,fsync,fdatasync,sync,syncfs,\
     rename,renameat,renameat2,mkdir,mkdirat,unlink,unlinkat,rmdir,link,linkat,symlink,symlinkat,\
     ftruncate,truncate,copy_file_range,sendfile,splice";

/// A call, with the lines at which it began and ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub start: usize,
    pub end: usize,
    pub call: Call,
}

/// What it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Call {
    /// Opened for writing: where, whether it may be made, is cut, is appended to; the descriptor.
    Open {
        path: PathBuf,
        create: bool,
        truncate: bool,
        append: bool,
        descriptor: String,
    },
    /// Bytes to the descriptor's position, or to an offset.
    Write {
        path: PathBuf,
        descriptor: String,
        bytes: Vec<u8>,
        offset: Option<u64>,
    },
    /// The descriptor's position is this now.
    Seek {
        descriptor: String,
        to: u64,
    },
    /// A new length.
    Truncate {
        path: PathBuf,
        length: u64,
    },
    /// A file or a directory was synced.
    Sync {
        path: PathBuf,
    },
    /// Everything was.
    SyncAll,
    Mkdir {
        path: PathBuf,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    /// A second name for a file.
    Link {
        from: PathBuf,
        to: PathBuf,
    },
}

/// Reads the calls that succeeded on something below `root`.
///
/// # Errors
/// A call below `root` is one that the model does not know.
pub(super) fn read(text: &str, root: &Path) -> Result<Vec<Event>, LabError> {
    let mut open: HashMap<&str, (usize, String)> = HashMap::new();
    let mut events = Vec::new();
    for (line, text) in text.lines().enumerate() {
        let Some((pid, rest)) = text.split_once(' ') else {
            continue;
        };
        let rest = rest.trim_start();
        let (start, whole) = if let Some(head) = rest.strip_suffix(" <unfinished ...>") {
            open.insert(pid, (line, head.to_owned()));
            continue;
        } else if let Some(resumed) = rest.strip_prefix("<... ") {
            let Some((start, head)) = open.remove(pid) else {
                continue;
            };
            let tail = resumed.split_once(" resumed>").map_or("", |(_, tail)| tail);
            (start, format!("{head}{tail}"))
        } else {
            (line, rest.to_owned())
        };
        if let Some(call) = parse(&whole, root)? {
            events.push(Event {
                start,
                end: line,
                call,
            });
        }
    }
    Ok(events)
}

fn parse(text: &str, root: &Path) -> Result<Option<Call>, LabError> {
    let Some((name, rest)) = text.split_once('(') else {
        return Ok(None);
    };
    // Short calls are padded with blanks before the result.
    let parts = rest.rsplit_once(" = ");
    let Some((arguments, result)) =
        parts.and_then(|(head, result)| Some((head.trim_end().strip_suffix(')')?, result.trim())))
    else {
        return Ok(None);
    };
    if result.starts_with('-') || result.starts_with('?') {
        return Ok(None);
    }
    let arguments = split(arguments);
    let argument = |index: usize| arguments.get(index).map_or("", |text| text.as_str());
    let path_of = |index: usize| PathBuf::from(into_text(&quoted(argument(index))));
    let of_descriptor = |index: usize| described(argument(index));
    let below = |path: &Path| path.starts_with(root);
    let count: usize = result
        .split(|c: char| !c.is_ascii_digit())
        .next()
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(0);
    let call = match name {
        "sync" | "syncfs" => Some(Call::SyncAll),
        "fsync" | "fdatasync" => Some(Call::Sync {
            path: of_descriptor(0).1,
        }),
        "open" | "openat" | "creat" => {
            let at = usize::from(name == "openat");
            let flags = argument(at + 1);
            let writes = name == "creat" || flags.contains("O_WRONLY") || flags.contains("O_RDWR");
            let (descriptor, _) = described(result);
            writes.then(|| Call::Open {
                path: path_of(at),
                create: name == "creat" || flags.contains("O_CREAT"),
                truncate: name == "creat" || flags.contains("O_TRUNC"),
                append: flags.contains("O_APPEND"),
                descriptor,
            })
        }
        "write" | "pwrite64" => {
            let (descriptor, path) = of_descriptor(0);
            let mut bytes = quoted(argument(1));
            bytes.truncate(count);
            let offset = (name == "pwrite64").then(|| argument(3).parse().unwrap_or(0));
            Some(Call::Write {
                path,
                descriptor,
                bytes,
                offset,
            })
        }
        "lseek" => Some(Call::Seek {
            descriptor: of_descriptor(0).0,
            to: count as u64,
        }),
        "ftruncate" => Some(Call::Truncate {
            path: of_descriptor(0).1,
            length: argument(1).parse().unwrap_or(0),
        }),
        "mkdir" => Some(Call::Mkdir { path: path_of(0) }),
        "mkdirat" => Some(Call::Mkdir {
            path: at(argument(0), &path_of(1)),
        }),
        "rename" => Some(Call::Rename {
            from: path_of(0),
            to: path_of(1),
        }),
        "renameat" | "renameat2" => Some(Call::Rename {
            from: at(argument(0), &path_of(1)),
            to: at(argument(2), &path_of(3)),
        }),
        "link" => Some(Call::Link {
            from: path_of(0),
            to: path_of(1),
        }),
        "linkat" => Some(Call::Link {
            from: at(argument(0), &path_of(1)),
            to: at(argument(2), &path_of(3)),
        }),
        "unlink" | "rmdir" => Some(Call::Remove { path: path_of(0) }),
        "unlinkat" => Some(Call::Remove {
            path: at(argument(0), &path_of(1)),
        }),
        _ => None,
    };
    let Some(call) = call else {
        // Opened to be read.
        let touches = arguments
            .iter()
            .any(|text| below(&described(text).1) || below(Path::new(&into_text(&quoted(text)))));
        if touches && !["open", "openat"].contains(&name) {
            return Err(LabError::Unexpected(format!(
                "the model does not know the call {name} in the trace"
            )));
        }
        return Ok(None);
    };
    let kept = match &call {
        Call::Open { path, .. }
        | Call::Write { path, .. }
        | Call::Truncate { path, .. }
        | Call::Sync { path }
        | Call::Mkdir { path }
        | Call::Remove { path } => below(path),
        Call::Rename { from, to } | Call::Link { from, to } => below(from) || below(to),
        Call::Seek { .. } | Call::SyncAll => true,
    };
    Ok(kept.then_some(call))
}

/// A relative path after a directory's descriptor.
fn at(directory: &str, path: &Path) -> PathBuf {
    described(directory).1.join(path)
}

/// Number and path of `12<\x2f…>`.
fn described(text: &str) -> (String, PathBuf) {
    let (number, rest) = text.split_once('<').unwrap_or((text, ""));
    let path = rest.trim_end_matches('>');
    (number.to_owned(), PathBuf::from(into_text(&unescape(path))))
}

fn quoted(text: &str) -> Vec<u8> {
    let inner = text
        .strip_prefix('"')
        .and_then(|text| text.rsplit_once('"'))
        .map_or("", |(inner, _)| inner);
    unescape(inner)
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() / 4);
    for piece in text.split("\\x").skip(1) {
        bytes.extend(
            piece
                .get(..2)
                .and_then(|hex| u8::from_str_radix(hex, 16).ok()),
        );
    }
    bytes
}

fn into_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Arguments stand apart by `, `; with `-xx` no text has a comma.
fn split(arguments: &str) -> Vec<String> {
    arguments.split(", ").map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_other_threads_interrupt_are_put_together() {
        // "/r/f" and "/r"
        let trace = "7 fsync(3<\\x2f\\x72\\x2f\\x66> <unfinished ...>\n\
                     8 mkdir(\"\\x2f\\x72\\x2f\\x64\", 0700) = 0\n\
                     7 <... fsync resumed>)      = 0\n\
                     8 write(4<\\x2f\\x72\\x2f\\x66>, \"\\x61\\x62\", 2) = 1\n\
                     8 mkdir(\"\\x2f\\x78\", 0700) = 0\n\
                     8 mkdir(\"\\x2f\\x72\", 0700) = -1 EEXIST (File exists)\n";
        let events = read(trace, Path::new("/r")).expect("known calls");
        let sync = Call::Sync {
            path: "/r/f".into(),
        };
        assert_eq!(events.len(), 3);
        assert_eq!(
            events[0].call,
            Call::Mkdir {
                path: "/r/d".into()
            }
        );
        assert_eq!(
            (events[1].start, events[1].end, &events[1].call),
            (0, 2, &sync)
        );
        let Call::Write { bytes, .. } = &events[2].call else {
            panic!("a write");
        };
        assert_eq!(bytes, b"a");
    }
}
