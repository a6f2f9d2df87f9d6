//! `coracle auth`: credentials come, go, and are listed. None is shown.

use std::io::{IsTerminal, Read as _};
use std::time::Duration;

use coracle::{Home, Kept, LoginRequest, Observer, Secret, Terminator};
use nix::sys::termios::{self, LocalFlags, SetArg, SpecialCharacterIndices, Termios};

use crate::args::auth::{Login, Logout, Place};
use crate::failure::Failure;
use crate::settings::Given;
use crate::{report, settings};

/// More than the longest password that there is.
const LIMIT: usize = 64 << 10;

/// Ask for what was not typed, and log in. `gone` says whether a signal has come.
pub(crate) fn login(
    typed: &Login,
    given: Option<&Given>,
    home: &dyn Fn() -> Result<Home, Failure>,
    observer: &dyn Observer,
    hold: &dyn Fn(Terminator),
    gone: &dyn Fn() -> bool,
) -> Result<(), Failure> {
    let (keychain, file) = settings::keychain_to_change(&typed.place, given)?;
    let (user, password) = if typed.password_stdin {
        (typed.username.clone().unwrap_or_default(), piped()?)
    } else {
        let terminal = Terminal::take()?;
        let ask =
            |what: &str| terminal.ask(&format!("{what} for {}: ", typed.registry), what != "Password", gone);
        let user = typed.username.clone().map_or_else(|| ask("Username").map(|it| it.to_string()), Ok)?;
        (user, ask("Password")?)
    };
    let (registry, insecure) = (typed.registry.clone(), typed.insecure);
    let request = LoginRequest { registry, user, password, insecure, keychain, file };
    let kept = coracle::log_in(&home()?, &request, observer, hold)?;
    report::result(&format!("logged in to {} as {}; kept in {kept}", request.registry, request.user));
    Ok(())
}

/// Forget, and say what.
pub(crate) fn logout(typed: &Logout, given: Option<&Given>, observer: &dyn Observer) -> Result<(), Failure> {
    let (keychain, _) = settings::keychain_to_change(&typed.place, given)?;
    let gone = coracle::log_out(&keychain, typed.registry.as_deref(), observer)?;
    match &typed.registry {
        Some(registry) if gone.is_empty() => {
            report::result(&format!("there were no credentials for {registry}"))
        }
        None if gone.is_empty() => report::result("there were no credentials"),
        _ => gone.iter().for_each(|(name, kept)| {
            report::result(&report::plain(&format!("logged out of {name}: {}", from(kept))));
        }),
    }
    Ok(())
}

fn from(kept: &Kept) -> String {
    match kept {
        Kept::In(place) => format!("taken out of {place}"),
        Kept::By { .. } => format!("forgotten by the {kept}"),
    }
}

/// Registries, users, places.
pub(crate) fn list(place: &Place, given: Option<&Given>, observer: &dyn Observer) -> Result<(), Failure> {
    let (keychain, _) = settings::keychain_to_change(place, given)?;
    let rows: Vec<_> = coracle::logins(&keychain, observer)
        .into_iter()
        .map(|login| {
            let user = login.user.unwrap_or_else(|| "(a token)".to_owned());
            [login.registry, user, login.kept.to_string()].map(|text| report::plain(&text))
        })
        .collect();
    report::table(&rows);
    Ok(())
}

/// A password that somebody pipes in, without the end of its line.
fn piped() -> Result<Secret, Failure> {
    let mut input = std::io::stdin().lock();
    if input.is_terminal() {
        return Err(Failure::PasswordOnTerminal);
    }
    // Reserved whole: a text that outgrows its place leaves copies behind.
    let mut text = Secret::new(String::with_capacity(LIMIT));
    input.by_ref().take(LIMIT as u64).read_to_string(&mut text).map_err(Failure::Password)?;
    let end = text.trim_end_matches('\n').trim_end_matches('\r').len();
    text.truncate(end);
    Ok(text)
}

/// The user's terminal. It shows what is typed again when this is dropped.
struct Terminal {
    before: Termios,
}

impl Terminal {
    /// Keys come one by one, and are not shown: that an interruption is one of them is why nothing is left changed.
    fn take() -> Result<Self, Failure> {
        let input = std::io::stdin();
        if !input.is_terminal() {
            return Err(Failure::NoTerminal);
        }
        let failed = |error: nix::Error| Failure::Password(error.into());
        let before = termios::tcgetattr(&input).map_err(failed)?;
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG);
        // Whoever reads gets nothing after a tenth of a second without a key.
        quiet.control_chars[SpecialCharacterIndices::VMIN as usize] = 0;
        quiet.control_chars[SpecialCharacterIndices::VTIME as usize] = 1;
        termios::tcsetattr(&input, SetArg::TCSAFLUSH, &quiet).map_err(failed)?;
        Ok(Self { before })
    }

    /// A line, shown while it is typed or not.
    fn ask(&self, prompt: &str, shown: bool, gone: &dyn Fn() -> bool) -> Result<Secret, Failure> {
        report::prompt(prompt);
        let line = self.line(shown, gone);
        report::prompt("\n");
        line
    }

    fn line(&self, shown: bool, gone: &dyn Fn() -> bool) -> Result<Secret, Failure> {
        let input = std::io::stdin();
        let mut line = Secret::new(String::with_capacity(LIMIT));
        let mut letter = Vec::new();
        while !gone() && line.len() + 4 < LIMIT {
            let mut key = [0];
            // Past the buffer of the standard library, which takes an answer of nothing for the end.
            match nix::unistd::read(&input, &mut key).map_err(|error| Failure::Password(error.into()))? {
                0 => std::thread::sleep(Duration::from_millis(1)),
                _ => match key[0] {
                    b'\r' | b'\n' => return Ok(line),
                    // Interrupt, end of file, quit.
                    3 | 4 | 28 => break,
                    // Backspace, by either name.
                    8 | 127 => {
                        if line.pop().is_some() && shown {
                            report::prompt("\u{8} \u{8}");
                        }
                    }
                    // The whole line.
                    21 => line.clear(),
                    key => {
                        letter.push(key);
                        if let Ok(text) = std::str::from_utf8(&letter) {
                            line.push_str(text);
                            if shown {
                                report::prompt(&report::plain(text));
                            }
                            letter.clear();
                        }
                    }
                },
            }
        }
        Err(Failure::NothingTyped)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // There is nobody left to tell.
        let _ = termios::tcsetattr(std::io::stdin(), SetArg::TCSAFLUSH, &self.before);
    }
}
