//! ansible-vault: what is encrypted in files and values, format 1.1 and 1.2, AES256.
//!
//! Decrypts only. Whatever was revealed is remembered, so that it can be hidden wherever it turns up.

use std::sync::{Arc, Mutex, PoisonError};

use aes::Aes256;
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit, StreamCipher};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// First word of everything that is encrypted.
const HEADER: &str = "$ANSIBLE_VAULT;";
/// As ansible-vault has it; both keys and the counter's start come out of one derivation.
const ITERATIONS: u32 = 10_000;
const KEY: usize = 32;
const COUNTER: usize = 16;

/// Why something stays encrypted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// No password was given.
    #[error("it is encrypted with ansible-vault, and no password was given")]
    NoPassword,
    /// No password fits.
    #[error("none of the vault passwords that were given opens it")]
    WrongPassword,
    /// Not the format that ansible-vault writes.
    #[error("it is not what ansible-vault writes: {0}")]
    Format(&'static str),
}

impl VaultError {
    /// What to do next.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match self {
            Self::NoPassword => "give `--vault-password-file FILE` or `--ask-vault-pass`",
            Self::WrongPassword => "`ansible-vault view` tells whether a password fits",
            Self::Format(_) => "encrypt it again with `ansible-vault encrypt`",
        }
    }
}

/// Passwords, and what they have revealed so far. Clones share both.
#[derive(Clone, Default)]
pub struct Vault {
    passwords: Arc<Vec<Vec<u8>>>,
    revealed: Arc<Mutex<Vec<String>>>,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault")
    }
}

impl Vault {
    /// Takes passwords; they are tried one after the other, whatever label a text has.
    #[must_use]
    pub fn new(passwords: Vec<String>) -> Self {
        Self {
            passwords: Arc::new(passwords.into_iter().map(String::into_bytes).collect()),
            ..Self::default()
        }
    }

    /// The passwords, for another agent that works with the same files.
    #[must_use]
    pub fn passwords(&self) -> Vec<String> {
        let texts = self.passwords.iter();
        texts
            .map(|password| String::from_utf8_lossy(password).into_owned())
            .collect()
    }

    /// Tells whether a text is encrypted.
    #[must_use]
    pub fn is_encrypted(text: &str) -> bool {
        text.trim_start().starts_with(HEADER)
    }

    /// Decrypts a text.
    ///
    /// # Errors
    /// [`VaultError`].
    pub fn open(&self, text: &str) -> Result<String, VaultError> {
        let (salt, tag, secret) = parts(text)?;
        if self.passwords.is_empty() {
            return Err(VaultError::NoPassword);
        }
        for password in self.passwords.iter() {
            if let Some(plain) = open(password, &salt, &tag, &secret)? {
                return String::from_utf8(plain)
                    .map_err(|_| VaultError::Format("what is inside is not UTF-8 text"));
            }
        }
        Err(VaultError::WrongPassword)
    }

    /// Remembers a secret.
    pub fn remember(&self, secret: &str) {
        let mut all = self.revealed.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(secret.to_owned());
    }

    /// Everything that was revealed so far.
    #[must_use]
    pub fn revealed(&self) -> Vec<String> {
        let all = self.revealed.lock().unwrap_or_else(PoisonError::into_inner);
        all.clone()
    }
}

type Parts = (Vec<u8>, Vec<u8>, Vec<u8>);

/// Salt, authentication tag and secret.
fn parts(text: &str) -> Result<Parts, VaultError> {
    let mut lines = text.trim().lines().map(str::trim);
    let header: Vec<&str> = lines.next().unwrap_or_default().split(';').collect();
    match header[..] {
        ["$ANSIBLE_VAULT", "1.1", "AES256"] | ["$ANSIBLE_VAULT", "1.2", "AES256", _] => {}
        ["$ANSIBLE_VAULT", ..] => {
            return Err(VaultError::Format(
                "only versions 1.1 and 1.2 with AES256 are known",
            ));
        }
        _ => {
            return Err(VaultError::Format(
                "it does not begin with `$ANSIBLE_VAULT;`",
            ));
        }
    }
    let body: String = lines.collect();
    let bad = |_| VaultError::Format("its digits are cut short or damaged");
    let inner = hex::decode(body).map_err(bad)?;
    let mut fields = inner.split(|byte| *byte == b'\n');
    let mut field = || hex::decode(fields.next().unwrap_or_default()).map_err(bad);
    let (salt, tag, secret) = (field()?, field()?, field()?);
    if salt.is_empty() || tag.len() != KEY || secret.is_empty() {
        return Err(VaultError::Format("a part of it is missing"));
    }
    Ok((salt, tag, secret))
}

/// `None`: another password.
fn open(
    password: &[u8],
    salt: &[u8],
    tag: &[u8],
    secret: &[u8],
) -> Result<Option<Vec<u8>>, VaultError> {
    let mut derived = [0_u8; KEY + KEY + COUNTER];
    pbkdf2::pbkdf2_hmac::<Sha256>(password, salt, ITERATIONS, &mut derived);
    let (cipher_key, rest) = derived.split_at(KEY);
    let (tag_key, counter) = rest.split_at(KEY);
    let wrong_length = |_| VaultError::Format("its keys have another length");
    let mut mac = Hmac::<Sha256>::new_from_slice(tag_key).map_err(wrong_length)?;
    mac.update(secret);
    if mac.verify_slice(tag).is_err() {
        return Ok(None);
    }
    let mut plain = secret.to_vec();
    let mut cipher = Ctr128BE::<Aes256>::new_from_slices(cipher_key, counter)
        .map_err(|_| VaultError::Format("its keys have another length"))?;
    cipher.apply_keystream(&mut plain);
    // PKCS#7: the last byte says how many there are of it.
    let padding = usize::from(*plain.last().unwrap_or(&0));
    if padding == 0 || padding > COUNTER || padding > plain.len() {
        return Err(VaultError::Format("its end is damaged"));
    }
    plain.truncate(plain.len() - padding);
    Ok(Some(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `ansible-vault encrypt_string` of ansible-core 2.19, password `open sesame`.
    const MADE: &str = include_str!("../../../tests/conformance/cases/vars/vaulted.yml");

    #[test]
    fn what_ansible_vault_made_is_opened_with_its_password_alone() {
        let vault = Vault::new(vec!["another".into(), "open sesame".into()]);
        assert_eq!(
            vault.open(MADE).as_deref(),
            Ok("from_file: \"file secret\"\n")
        );
        let wrong = Vault::new(vec!["open sesam".into()]);
        assert_eq!(wrong.open(MADE), Err(VaultError::WrongPassword));
        assert_eq!(Vault::default().open(MADE), Err(VaultError::NoPassword));
        assert!(Vault::is_encrypted(MADE) && !Vault::is_encrypted("a: 1\n"));
    }

    #[test]
    fn damaged_texts_are_refused_and_never_half_opened() {
        let vault = Vault::new(vec!["open sesame".into()]);
        let lines: Vec<&str> = MADE.lines().collect();
        assert!(vault.open(&lines[..lines.len() - 1].join("\n")).is_err());
        assert!(vault.open("$ANSIBLE_VAULT;1.0;AES\n00").is_err());
        assert!(vault.open("$ANSIBLE_VAULT;1.1;AES256\nzz").is_err());
        let changed = MADE.replacen('3', "4", 12);
        assert!(vault.open(&changed).is_err());
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Vault::new(vec!["secret".into()])), "Vault");
    }
}
