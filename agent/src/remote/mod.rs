//! The agent on other hosts: pushed over the user's own OpenSSH, working there on its own.
//!
//! The controller starts the agent on a host **detached** and only watches: what happens to the line or to
//! the controller does not reach the run, whose lock and journal are the host's. On the host everything
//! lies below one folder, `/var/lib/kaapana-agent` for root:
//!
//! ```text
//! bin/<sha256>/kaapana-agent        the agent, named by its content, checked when it arrives
//! bundles/<sha256>/                 playbooks with the files beside them, the same way
//! playbooks/<name>                  link to the bundle that the last run of this playbook used
//! jobs/<name>/<job>/events.jsonl    what the run said; `exit` when it has ended, `lock` while it works
//! state/<name>/                     the state, as everywhere
//! ```

mod bundle;
mod drive;
mod error;
pub mod job;
mod order;
mod push;
mod session;
mod shell;
mod ssh;
mod state_copy;

pub use bundle::{Bundle, unpack};
pub use drive::{Fleet, HostEnd, HostEvent, HostOutcome, Work};
pub use error::RemoteError;
pub use order::{HostOrder, ORDER_VERSION, Order, RemoteCommand};
pub use ssh::{Become, SshConnection, Target};
pub use state_copy::{Copied, store};
