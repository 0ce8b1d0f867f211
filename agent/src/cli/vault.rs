//! Passwords of ansible-vault, as Ansible takes them: from files, from programs, from a person.

use std::fs;
use std::io::IsTerminal;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::args::Global;
use super::exit::Failure;
use crate::vault::Vault;

/// Collects the passwords that the command line names.
pub(super) fn vault(global: &Global) -> Result<Vault, Failure> {
    let mut passwords = Vec::new();
    for path in &global.vault_password_file {
        passwords.push(from_file(path)?);
    }
    if global.ask_vault_pass {
        passwords.push(ask("Vault password: ").map_err(|reason| {
            Failure::other(
                "vault::password",
                format!("nobody can be asked for the vault password: {reason}"),
                "give it with `--vault-password-file FILE`",
            )
        })?);
    }
    Ok(Vault::new(passwords))
}

/// Asks a person; what is typed stays invisible.
pub(super) fn ask(prompt: &str) -> Result<String, String> {
    if !std::io::stdin().is_terminal() {
        return Err("standard input is no terminal".into());
    }
    let screen = console::Term::stderr();
    screen
        .write_str(prompt)
        .and_then(|()| screen.read_secure_line())
        .map_err(|error| error.to_string())
}

fn from_file(path: &Path) -> Result<String, Failure> {
    let failed = |reason: String| {
        Failure::other(
            "vault::password",
            format!(
                "failed to read the vault password from {}: {reason}",
                path.display()
            ),
            "name a file whose content is the password, or a program that prints it",
        )
    };
    let meta = fs::metadata(path).map_err(|error| failed(error.to_string()))?;
    let text = if meta.permissions().mode() & 0o111 == 0 {
        fs::read_to_string(path).map_err(|error| failed(error.to_string()))?
    } else {
        let program = std::path::absolute(path).map_err(|error| failed(error.to_string()))?;
        let output = Command::new(program)
            .output()
            .map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            return Err(failed(format!("it ended with {}", output.status)));
        }
        String::from_utf8(output.stdout).map_err(|_| failed("it is not UTF-8 text".into()))?
    };
    match text.trim() {
        "" => Err(failed("it is empty".into())),
        password => Ok(password.to_owned()),
    }
}
