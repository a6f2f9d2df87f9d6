//! The server of built images, and the check of what it serves.
//!
//! `serve FOLDER` answers at `PORT` (0 is any that is free) with `SITE_THREADS` threads; `{{SITE_NAME}}` in a page is the variable of that
//! name. `serve --check FOLDER` compares the folder with what the build listed in `SITE_LISTING`.

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["--check", folder] => check(Path::new(folder)),
        [folder] => serve(Path::new(folder)),
        _ => Err(io::Error::other("usage: serve [--check] FOLDER")),
    };
    done.map_or_else(
        |error| {
            eprintln!("serve: {error}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

fn variable(name: &str) -> io::Result<String> {
    env::var(name).map_err(|error| io::Error::other(format!("{name}: {error}")))
}

fn check(folder: &Path) -> io::Result<()> {
    let listed = fs::read_to_string(variable("SITE_LISTING")?)?;
    let found = site::listing(folder)?;
    if listed != found {
        return Err(io::Error::other(format!("other files than were built\nbuilt:\n{listed}here:\n{found}")));
    }
    println!("{} files as they were built", found.lines().count());
    Ok(())
}

fn serve(folder: &Path) -> io::Result<()> {
    let folder = folder.canonicalize()?;
    let port = variable("PORT")?;
    let threads = variable("SITE_THREADS")?.parse::<usize>().map_err(io::Error::other)?.max(1);
    let listener = TcpListener::bind(format!("0.0.0.0:{port}"))?;
    println!("listening on port {} with {threads} threads", listener.local_addr()?.port());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for connection in listener.incoming() {
                    if let Err(error) = connection.and_then(|stream| answer(&stream, &folder)) {
                        eprintln!("serve: {error}");
                    }
                }
            });
        }
    });
    Ok(())
}

/// One request, one answer. The first line says all that is looked at.
fn answer(stream: &TcpStream, folder: &Path) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut lines = BufReader::new(stream.take(16 * 1024)).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let words: Vec<&str> = first.split(' ').collect();
    let (status, kind, body) = match words[..] {
        ["GET", target, _] => file(target, folder).map_or_else(
            || ("404 Not Found", "text/plain".to_owned(), b"not here\n".to_vec()),
            |(kind, body)| ("200 OK", kind, body),
        ),
        _ => ("405 Method Not Allowed", "text/plain".to_owned(), b"only GET\n".to_vec()),
    };
    if env::var("SITE_LOG").is_ok_and(|what| what == "requests") {
        println!("{first} -> {status}");
    }
    let mut stream = stream;
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )?;
    stream.write_all(&body)
}

/// The kind and content of a file below the folder; a link out of it counts as none.
fn file(target: &str, folder: &Path) -> Option<(String, Vec<u8>)> {
    let path = target.split('?').next()?.trim_start_matches('/');
    let mut path: PathBuf = folder.join(path).canonicalize().ok()?;
    if path.is_dir() {
        path = path.join("index.html").canonicalize().ok()?;
    }
    let body = fs::read(path.strip_prefix(folder).is_ok().then_some(&path)?).ok()?;
    let ending = path.extension()?.to_str()?;
    let kinds = env::var("SITE_TYPES").unwrap_or_default();
    let kind = kinds.split(',').filter_map(|pair| pair.split_once('=')).find(|(known, _)| *known == ending);
    let kind = kind.map_or("application/octet-stream", |(_, kind)| kind).to_owned();
    Some(if kind == "text/html" { (kind, filled(&body)) } else { (kind, body) })
}

fn filled(page: &[u8]) -> Vec<u8> {
    let mut page = String::from_utf8_lossy(page).into_owned();
    for (name, value) in env::vars().filter(|(name, _)| name.starts_with("SITE_")) {
        page = page.replace(&format!("{{{{{name}}}}}"), &value);
    }
    page.into_bytes()
}
