//! Answers a `pause`: `--yes`, or a person at a terminal.

use std::io::{BufRead, IsTerminal, Write, stdin};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio_util::sync::CancellationToken;

use crate::report::terminal;
use crate::task::context::Confirm;

/// How often an open question looks whether the run was interrupted.
const LOOK: Duration = Duration::from_millis(200);

/// Asks on the terminal, or confirms for `--yes`.
pub(super) struct Terminal {
    pub yes: bool,
    pub user: String,
    pub cancel: CancellationToken,
    /// The bars that must not be in the question's way.
    pub screen: Option<Arc<terminal::Terminal>>,
    /// Where nobody sits at the terminal that standard input may be: how a yes is given instead.
    pub instead: Option<&'static str>,
}

impl Confirm for Terminal {
    fn confirm(&self, prompt: &str) -> Result<String, String> {
        if self.yes {
            return Ok(format!("{} with --yes", self.user));
        }
        if let Some(instead) = self.instead {
            return Err(format!(
                "nobody can be asked here, {instead} says yes: {prompt}"
            ));
        }
        if !stdin().is_terminal() {
            return Err(
                "nobody can be asked: standard input is no terminal, and --yes was not given"
                    .into(),
            );
        }
        match &self.screen {
            Some(screen) => screen.suspend(|| self.ask(prompt)),
            None => self.ask(prompt),
        }
    }
}

impl Terminal {
    fn ask(&self, prompt: &str) -> Result<String, String> {
        let mut err = std::io::stderr();
        let asked = write!(
            err,
            "\n{prompt}\nType `yes` to go on, anything else to stop: "
        )
        .and_then(|()| err.flush());
        if let Err(error) = asked {
            return Err(format!("the question could not be shown: {error}"));
        }
        let input = stdin();
        loop {
            let mut ready = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::ZERO);
            let found = poll(&mut ready, timeout);
            if self.cancel.is_cancelled() {
                return Err("interrupted at the question".into());
            }
            if matches!(found, Ok(count) if count > 0) {
                break;
            }
        }
        let mut answer = String::new();
        match input.lock().read_line(&mut answer) {
            Ok(_) if answer.trim().eq_ignore_ascii_case("yes") => {
                Ok(format!("{} at the terminal", self.user))
            }
            Ok(_) => Err("the answer was not `yes`".into()),
            Err(error) => Err(format!("the answer could not be read: {error}")),
        }
    }
}
