//! Listens: `probe serve WORD tcp:ADDRESS... udp:ADDRESS...`. Says the word to whoever connects, and in answer to whatever is
//! sent. Prints `ready` when all listen, and then stays.

use std::io::{self, Write};
use std::net::{TcpListener, UdpSocket};
use std::thread;

pub(crate) fn serve(word: &str, addresses: &[&str]) -> io::Result<()> {
    for address in addresses {
        let said = format!("{word}\n").into_bytes();
        if let Some(address) = address.strip_prefix("tcp:") {
            let listener = TcpListener::bind(address)?;
            thread::spawn(move || {
                listener.incoming().flatten().for_each(|mut stream| drop(stream.write_all(&said)))
            });
        } else if let Some(address) = address.strip_prefix("udp:") {
            let socket = UdpSocket::bind(address)?;
            thread::spawn(move || {
                while let Ok((_, from)) = socket.recv_from(&mut [0; 512]) {
                    let _ = socket.send_to(&said, from);
                }
            });
        } else {
            return Err(io::Error::other(format!("{address} is neither tcp: nor udp:")));
        }
    }
    writeln!(io::stdout(), "ready")?;
    loop {
        thread::park();
    }
}
