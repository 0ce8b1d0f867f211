//! The HTTP client of all modules.

use std::io::Read;
use std::time::Duration;

use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig};

/// How a client behaves.
#[derive(Debug, Clone, Copy)]
pub struct Manners {
    /// How long the server may be silent.
    pub silence: Duration,
    /// Asks whether the server's certificate is one that this host trusts.
    pub verify: bool,
    /// How many redirects are followed.
    pub redirects: u32,
}

impl Manners {
    /// Makes a client. A status of 400 and more is an answer to it, no error.
    pub fn client(self) -> Agent {
        let silence = Some(self.silence);
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::PlatformVerifier)
            .disable_verification(!self.verify)
            .build();
        Agent::config_builder()
            .http_status_as_error(false)
            // A redirect's connection is not used again: a server may have closed it unannounced.
            .max_idle_connections(0)
            .max_redirects(self.redirects)
            .max_redirects_will_error(self.redirects > 0)
            .allow_non_standard_methods(true)
            .timeout_connect(silence)
            .timeout_recv_response(silence)
            .timeout_per_read(silence)
            .user_agent(concat!("kaapana-agent/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls)
            .build()
            .into()
    }
}

/// An address without the user and password that it may carry.
pub fn shown(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let host_end = rest.find('/').unwrap_or(rest.len());
            match rest[..host_end].rfind('@') {
                Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
                None => url.to_owned(),
            }
        }
        None => url.to_owned(),
    }
}

/// Keeps what the network said apart from what the disk says.
pub struct Guarded<R> {
    /// What is read.
    pub body: R,
    /// What reading it said.
    pub error: Option<String>,
}

impl<R: Read> Read for Guarded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.body.read(buffer);
        if let Err(error) = &read {
            self.error = Some(error.to_string());
        }
        read
    }
}
