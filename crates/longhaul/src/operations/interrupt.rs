//! Ctrl-C during a wait: what it means, and the question whether to detach, cancel or wait on.

use std::io::{self, IsTerminal, Write};

use tokio::sync::oneshot;

/// What to do after Ctrl-C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Leave; the operations go on.
    Detach,
    /// Ask for cancellation and wait on.
    Cancel,
    /// Wait on.
    Keep,
}

/// What Ctrl-C means without asking, if anything: on a terminal there is somebody to ask.
pub fn settled(cancel_on_interrupt: bool, interrupts: u32, terminal: bool) -> Option<Choice> {
    match (cancel_on_interrupt, interrupts, terminal) {
        (true, 0 | 1, _) => Some(Choice::Cancel),
        (true, _, _) | (false, _, false) => Some(Choice::Detach),
        (false, _, true) => None,
    }
}

/// Whether there is somebody to ask.
pub fn somebody_there() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks on the terminal. The thread that reads stays behind when the caller stops waiting; it ends
/// with the process.
pub async fn ask(running: usize) -> Choice {
    let (answer, asked) = oneshot::channel();
    let what = if running == 1 { "it".to_owned() } else { format!("{running} operations") };
    let spawned = std::thread::Builder::new().name("question".to_owned()).spawn(move || {
        // Nobody waits for the answer any more when sending fails.
        let _ = answer.send(question(&what));
    });
    match spawned {
        Ok(_) => asked.await.unwrap_or(Choice::Detach),
        Err(_) => Choice::Detach,
    }
}

fn question(what: &str) -> Choice {
    let mut stderr = io::stderr();
    loop {
        let prompt = format!("\nDetach (leave {what} running), cancel, or keep waiting? [D/c/k] ");
        if stderr.write_all(prompt.as_bytes()).and_then(|()| stderr.flush()).is_err() {
            return Choice::Detach;
        }
        let mut line = String::new();
        match io::stdin().read_line(&mut line) {
            Ok(0) | Err(_) => return Choice::Detach,
            Ok(_) => {}
        }
        if let Some(choice) = understand(&line) {
            return choice;
        }
    }
}

/// Reads an answer; `None`: ask again.
fn understand(line: &str) -> Option<Choice> {
    match line.trim().to_ascii_lowercase().as_str() {
        "" | "d" | "detach" => Some(Choice::Detach),
        "c" | "cancel" => Some(Choice::Cancel),
        "k" | "keep" | "keep waiting" => Some(Choice::Keep),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_terminal_ctrl_c_detaches() {
        assert_eq!(settled(false, 1, false), Some(Choice::Detach));
        assert_eq!(settled(false, 1, true), None);
    }

    #[test]
    fn when_told_so_ctrl_c_cancels_and_the_second_detaches() {
        for terminal in [true, false] {
            assert_eq!(settled(true, 1, terminal), Some(Choice::Cancel));
            assert_eq!(settled(true, 2, terminal), Some(Choice::Detach));
        }
    }

    #[test]
    fn answers_are_words_or_letters() {
        assert_eq!(understand("C\n"), Some(Choice::Cancel));
        assert_eq!(understand(" keep waiting "), Some(Choice::Keep));
        assert_eq!(understand("\n"), Some(Choice::Detach));
        assert_eq!(understand("what?"), None);
    }
}
