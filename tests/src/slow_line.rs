//! A line on which every byte takes its time, in both directions: the kernel may have no netem.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use crate::error::{LabError, io_error};

/// Pieces that may be under way at once; each is at most 64 KiB.
const UNDER_WAY: usize = 4096;

/// A line from a port of 127.0.0.1 to an sshd. It ends with this value; what it carries then ends with that.
#[derive(Debug)]
pub struct SlowLine {
    /// Where it begins.
    pub port: u16,
    over: Arc<AtomicBool>,
}

impl SlowLine {
    /// Makes a line to an sshd at this address.
    ///
    /// # Errors
    /// The kernel gives no port.
    pub fn to(address: &str, delay: Duration) -> Result<Self, LabError> {
        let here = std::path::Path::new("127.0.0.1");
        let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(io_error("listen at", here))?;
        let port = listener
            .local_addr()
            .map_err(io_error("listen at", here))?
            .port();
        let over = Arc::new(AtomicBool::new(false));
        let (is_over, address) = (Arc::clone(&over), address.to_owned());
        spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                // Whoever cannot be carried sees the connection end.
                let _ = TcpStream::connect((address.as_str(), 22))
                    .and_then(|server| carry(&client, &server, delay));
            }
        });
        Ok(Self { port, over })
    }

    /// Arguments for ssh that take it to `address` over this line.
    #[must_use]
    pub fn arguments(&self, address: &str) -> String {
        format!(
            "-o HostName=127.0.0.1 -o Port={} -o HostKeyAlias={address}",
            self.port
        )
    }
}

impl Drop for SlowLine {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn carry(client: &TcpStream, server: &TcpStream, delay: Duration) -> io::Result<()> {
    one_way(client.try_clone()?, server.try_clone()?, delay);
    one_way(server.try_clone()?, client.try_clone()?, delay);
    Ok(())
}

fn one_way(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let (send, receive) = sync_channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    spawn(move || {
        let mut piece = vec![0; 64 << 10];
        while let Ok(count) = from.read(&mut piece) {
            let arrives = Instant::now() + delay;
            if count == 0 || send.send((arrives, piece[..count].to_vec())).is_err() {
                return;
            }
        }
    });
    spawn(move || {
        for (arrives, piece) in receive {
            sleep(arrives.saturating_duration_since(Instant::now()));
            if to.write_all(&piece).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
}
