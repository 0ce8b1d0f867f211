//! One run on a host for each state, whatever folder its copies lie in: an abstract socket with the
//! state's id in its name (unix(7)), which the kernel takes away when the process ends, however.
//!
//! Containers with a network namespace of their own do not see it.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use super::error::StateError;

/// Holds the state on this host until dropped.
#[derive(Debug)]
pub struct HostLock {
    _socket: UnixListener,
}

impl HostLock {
    /// Takes the lock without waiting.
    ///
    /// # Errors
    /// [`StateError::HeldByCopy`] with the other's process where somebody holds it.
    pub fn take(state_id: &str) -> Result<Self, StateError> {
        let name = format!("kaapana-agent/state/{state_id}");
        let failed = |source| StateError::Io {
            action: "take the host's lock",
            path: format!("@{name}").into(),
            source,
        };
        let address = SocketAddr::from_abstract_name(&name).map_err(failed)?;
        match UnixListener::bind_addr(&address) {
            Ok(socket) => Ok(Self { _socket: socket }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(StateError::HeldByCopy {
                state_id: state_id.to_owned(),
                holder: holder(&address),
            }),
            Err(error) => Err(failed(error)),
        }
    }
}

/// The kernel keeps who listens; nobody has to answer for that.
fn holder(address: &SocketAddr) -> String {
    let pid = (|| {
        tokio::runtime::Handle::try_current().ok()?;
        let stream = UnixStream::connect_addr(address).ok()?;
        stream.set_nonblocking(true).ok()?;
        let stream = tokio::net::UnixStream::from_std(stream).ok()?;
        stream.peer_cred().ok()?.pid()
    })();
    pid.map_or_else(
        || "an unknown process".into(),
        |pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<_> = line
                .split(|byte| *byte == 0)
                .filter(|word| !word.is_empty())
                .map(String::from_utf8_lossy)
                // The rest may hold what a process list should not be asked for twice.
                .take(3)
                .collect();
            format!("pid {pid} ({})", words.join(" "))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_state_is_held_once_on_a_host_and_free_when_its_holder_goes() {
        let id = format!("test-{}", std::process::id());
        let first = HostLock::take(&id).expect("free");
        let Err(StateError::HeldByCopy { holder, .. }) = HostLock::take(&id) else {
            panic!("the state was held twice");
        };
        assert!(
            holder.starts_with(&format!("pid {} (", std::process::id())),
            "{holder}"
        );
        HostLock::take(&format!("{id}-other")).expect("another state is free");
        drop(first);
        HostLock::take(&id).expect("free again");
    }
}
