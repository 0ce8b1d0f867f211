//! Small argument types of the Docker modules: command lines, environments, sizes, ports, volumes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::error::DockerError;

/// A command line: a list of words, or one text that is cut into words as a shell would, without
/// expanding anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Words {
    /// Word by word.
    List(Vec<String>),
    /// `sh`-like quoting.
    Text(String),
}

impl Words {
    /// Returns the words.
    ///
    /// # Errors
    /// A quote is not closed.
    pub fn split(&self, argument: &'static str) -> Result<Vec<String>, DockerError> {
        match self {
            Self::List(words) => Ok(words.clone()),
            Self::Text(text) => split_words(text).ok_or_else(|| DockerError::Argument {
                argument,
                message: format!("a quote is not closed in `{text}`"),
            }),
        }
    }
}

fn split_words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '"' => break,
                        '\\' => match chars.next()? {
                            c @ ('"' | '\\' | '$' | '`') => word.push(c),
                            c => word.extend(['\\', c]),
                        },
                        c => word.push(c),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(chars.next()?),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Some(words)
}

/// Reads an environment whose values may be texts, numbers or booleans.
pub fn env_map<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    BTreeMap::<String, Value>::deserialize(from)?
        .into_iter()
        .map(|(name, value)| match value {
            Value::String(text) => Ok((name, text)),
            Value::Number(number) => Ok((name, number.to_string())),
            Value::Bool(on) => Ok((name, on.to_string())),
            Value::Null => Ok((name, String::new())),
            _ => Err(serde::de::Error::custom(format!("`{name}` must be a text"))),
        })
        .collect()
}

/// A size in bytes: a number, or a text such as `64M` or `1.5G` (powers of 1024).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Size {
    /// Bytes.
    Bytes(u64),
    /// With a unit: `B`, `K`, `M`, `G`, `T`, each optionally followed by `B` or `iB`.
    Text(String),
}

impl Size {
    /// Returns bytes.
    ///
    /// # Errors
    /// The text is no size.
    pub fn bytes(&self, argument: &'static str) -> Result<i64, DockerError> {
        let bad = || DockerError::Argument {
            argument,
            message: format!("{self:?} is no size; write for example 256M or 1G"),
        };
        let text = match self {
            Self::Bytes(bytes) => return i64::try_from(*bytes).map_err(|_| bad()),
            Self::Text(text) => text.trim(),
        };
        let digits = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let number: f64 = text[..digits].parse().map_err(|_| bad())?;
        let unit = text[digits..].trim().to_ascii_uppercase();
        let unit = unit
            .strip_suffix("IB")
            .or_else(|| unit.strip_suffix('B'))
            .unwrap_or(&unit);
        let power = match unit {
            "" => 0,
            "K" => 1,
            "M" => 2,
            "G" => 3,
            "T" => 4,
            _ => return Err(bad()),
        };
        // Sizes of memory are far below 2^53, where f64 is exact.
        Ok((number * 1024_f64.powi(power)) as i64)
    }
}

/// A mount in its long form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MountArgument {
    /// Directory or file on the host, or name of a volume. Relative paths start at the playbook.
    #[serde(default)]
    pub source: Option<String>,
    /// Path in the container.
    pub target: String,
    /// `bind` (default), `volume` or `tmpfs`.
    #[serde(default, rename = "type")]
    pub kind: MountKind,
    /// Mounted read-only. Default: false.
    #[serde(default)]
    pub read_only: bool,
}

/// What is mounted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// A directory or file of the host.
    #[default]
    Bind,
    /// A named volume of Docker's.
    Volume,
    /// Memory.
    Tmpfs,
}

/// A mount, understood.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum MountPlan {
    /// A directory or file of the host, which must exist.
    Bind {
        /// On the host.
        source: PathBuf,
        /// In the container.
        target: String,
        /// Read-only.
        read_only: bool,
    },
    /// A named volume.
    Volume {
        /// Its name.
        name: String,
        /// In the container.
        target: String,
        /// Read-only.
        read_only: bool,
    },
    /// Memory.
    Tmpfs {
        /// In the container.
        target: String,
    },
}

/// Reads `source:target[:ro|rw]`.
///
/// # Errors
/// The text has another shape.
pub fn volume(text: &str) -> Result<(String, String, bool), DockerError> {
    let bad = |message: String| DockerError::Argument {
        argument: "volumes",
        message,
    };
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, options),
        _ => {
            return Err(bad(format!(
                "`{text}` is not `source:target[:ro]`; for a path with a colon use `mounts`"
            )));
        }
    };
    if source.is_empty() || !target.starts_with('/') {
        return Err(bad(format!(
            "`{text}`: the source is empty or the target is not absolute"
        )));
    }
    let read_only = match options {
        "" | "rw" => false,
        "ro" => true,
        other => {
            return Err(bad(format!(
                "`{text}`: option `{other}` is not known here; use ro or rw"
            )));
        }
    };
    Ok((source.to_owned(), target.to_owned(), read_only))
}

/// One published port, understood.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortPlan {
    /// `5432/tcp`.
    pub container: String,
    /// Address on the host; loopback unless another is written out.
    pub host_ip: String,
    /// Port on the host; empty: the kernel picks one.
    pub host_port: String,
}

/// Reads `[[address:]host_port:]container_port[/protocol]`.
///
/// # Errors
/// The text has another shape.
pub fn port(text: &str) -> Result<PortPlan, DockerError> {
    let bad = || DockerError::Argument {
        argument: "published_ports",
        message: format!("`{text}` is not `[[address:]host_port:]container_port[/tcp|udp]`"),
    };
    let (front, container) = text.rsplit_once(':').unwrap_or(("", text));
    let (number, protocol) = container.split_once('/').unwrap_or((container, "tcp"));
    number
        .parse::<u16>()
        .ok()
        .filter(|&port| port > 0)
        .ok_or_else(bad)?;
    if !["tcp", "udp", "sctp"].contains(&protocol) {
        return Err(bad());
    }
    let (host_ip, host_port) = match front.rsplit_once(':') {
        Some((ip, port)) => (ip.trim_start_matches('[').trim_end_matches(']'), port),
        None => ("127.0.0.1", front),
    };
    host_ip.parse::<std::net::IpAddr>().map_err(|_| bad())?;
    // `0` means the same as nothing.
    let host_port = if host_port == "0" { "" } else { host_port };
    if !host_port.is_empty() {
        host_port.parse::<u16>().map_err(|_| bad())?;
    }
    Ok(PortPlan {
        container: format!("{number}/{protocol}"),
        host_ip: host_ip.to_owned(),
        host_port: host_port.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cut_as_a_shell_cuts_them() {
        let split = |text: &str| Words::Text(text.into()).split("command").expect("balanced");
        assert_eq!(
            split("postgres -c 'a b'  x\\ y \"q\\\"r\""),
            ["postgres", "-c", "a b", "x y", "q\"r"]
        );
        assert_eq!(split("''"), [""]);
        assert!(Words::Text("a 'b".into()).split("command").is_err());
    }

    #[test]
    fn ports_stay_on_loopback_unless_an_address_is_written_out() {
        let plan = |text: &str| {
            port(text)
                .map(|p| (p.container, p.host_ip, p.host_port))
                .ok()
        };
        let some = |a: &str, b: &str, c: &str| Some((a.into(), b.into(), c.into()));
        assert_eq!(plan("5432"), some("5432/tcp", "127.0.0.1", ""));
        assert_eq!(plan("0:5432"), some("5432/tcp", "127.0.0.1", ""));
        assert_eq!(plan("15432:5432"), some("5432/tcp", "127.0.0.1", "15432"));
        assert_eq!(plan("127.0.0.1::53/udp"), some("53/udp", "127.0.0.1", ""));
        assert_eq!(plan("0.0.0.0:80:8080"), some("8080/tcp", "0.0.0.0", "80"));
        assert_eq!(plan("[::1]:80:8080"), some("8080/tcp", "::1", "80"));
        for wrong in ["", "x", "70000", "host:1:2", "1:2:3:4", "80/icmp"] {
            assert_eq!(plan(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn volumes_and_sizes() {
        assert_eq!(
            volume("/a:/b:ro").ok(),
            Some(("/a".into(), "/b".into(), true))
        );
        assert_eq!(
            volume("data:/b").ok(),
            Some(("data".into(), "/b".into(), false))
        );
        assert!(volume("/a").is_err() && volume("/a:b").is_err() && volume("/a:/b:z").is_err());
        let size = |text: &str| Size::Text(text.into()).bytes("memory").ok();
        assert_eq!(size("64M"), Some(64 << 20));
        assert_eq!(size("1.5GiB"), Some(3 << 29));
        assert_eq!(size("12"), Some(12));
        assert_eq!(size("12X"), None);
    }
}
