//! A certificate for 127.0.0.1, made by openssl.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::{LabError, io_error};
use crate::{apt, tool};

/// Its own authority, and no authority for others: some clients refuse a server that is one.
const REQUEST: &str = "[req]
distinguished_name = name
x509_extensions = extensions
prompt = no
[name]
CN = kaapana-lab
[extensions]
basicConstraints = critical, CA:FALSE
subjectAltName = IP:127.0.0.1
";

/// Makes `server.crt` and `server.key` in a folder, and what a server needs of them.
pub(super) fn config(dir: &Path) -> Result<Arc<ServerConfig>, LabError> {
    apt::ensure("openssl", "openssl")?;
    let request = dir.join("request.conf");
    fs::write(&request, REQUEST).map_err(io_error("write", &request))?;
    let mut openssl = Command::new("openssl");
    openssl.current_dir(dir).args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
        "-config",
        "request.conf",
        "-keyout",
        "server.key",
        "-out",
        "server.crt",
    ]);
    tool::run(&mut openssl, "make a certificate")?;
    let bad = |error: String| LabError::Unexpected(format!("use the certificate: {error}"));
    let certificate = CertificateDer::from_pem_file(dir.join("server.crt"));
    let key = PrivateKeyDer::from_pem_file(dir.join("server.key"));
    let certificate = certificate.map_err(|error| bad(error.to_string()))?;
    let key = key.map_err(|error| bad(error.to_string()))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder
                .with_no_client_auth()
                .with_single_cert(vec![certificate], key)
        });
    config.map(Arc::new).map_err(|error| bad(error.to_string()))
}
