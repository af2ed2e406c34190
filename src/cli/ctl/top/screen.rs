//! The terminal: a screen of its own, given back whatever happens, and the keys.

use std::io::{self, IsTerminal as _, Stdout};

use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor,
        event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
        execute,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
    style::{Color, Modifier, Style},
};
use tokio::sync::mpsc;

use super::frame::{Line, Tone};

/// Whether there is a terminal to show anything on, and to hear keys from.
pub(super) fn is_possible() -> bool {
    io::stdout().is_terminal() && io::stdin().is_terminal()
}

/// The terminal, while it is ours.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// It is gone.
    pub(super) fn begin() -> io::Result<Self> {
        let terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
        let screen = Self { terminal };
        enable_raw_mode()?;
        execute!(io::stdout(), EnterAlternateScreen, cursor::Hide)?;
        Ok(screen)
    }

    /// Shows lines from the top, as much of each as there is room for.
    ///
    /// # Errors
    /// The terminal is gone.
    pub(super) fn show(&mut self, lines: &[Line]) -> io::Result<()> {
        self.terminal.draw(|frame| {
            let area = frame.area();
            let buffer = frame.buffer_mut();
            for (row, line) in (area.top()..area.bottom()).zip(lines) {
                buffer.set_stringn(area.left(), row, &line.text, usize::from(area.width), style(line.tone));
            }
        })?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // There is nothing left to do about a terminal that is gone.
        disable_raw_mode().unwrap_or_default();
        execute!(io::stdout(), LeaveAlternateScreen, cursor::Show).unwrap_or_default();
    }
}

fn style(tone: Tone) -> Style {
    match tone {
        Tone::Plain => Style::new(),
        Tone::Heading => Style::new().add_modifier(Modifier::REVERSED),
        Tone::Trouble => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
    }
}

/// What somebody wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// To end.
    End,
    /// The next order.
    Order,
    /// The same order, turned around.
    Reverse,
    /// The window has another size.
    Redraw,
}

/// Hears keys in a thread of its own, which ends with the process.
pub(super) fn listen(keys: mpsc::Sender<Key>) {
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            let Some(key) = meant(&event) else { continue };
            if keys.blocking_send(key).is_err() {
                return;
            }
        }
    });
}

fn meant(event: &Event) -> Option<Key> {
    match event {
        Event::Resize(..) => Some(Key::Redraw),
        Event::Key(key) if key.kind == KeyEventKind::Release => None,
        Event::Key(key) => match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Key::End),
            KeyCode::Char('q') | KeyCode::Esc => Some(Key::End),
            KeyCode::Char('s') => Some(Key::Order),
            KeyCode::Char('r') => Some(Key::Reverse),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use ratatui::crossterm::event::KeyEvent;

    use super::*;

    #[test]
    fn keys_mean_what_the_help_says() {
        let pressed = |code, modifiers| meant(&Event::Key(KeyEvent::new(code, modifiers)));
        let plain = KeyModifiers::NONE;
        let keys = ['q', 's', 'r', 'x'].map(|letter| pressed(KeyCode::Char(letter), plain));
        assert_eq!(keys, [Some(Key::End), Some(Key::Order), Some(Key::Reverse), None]);
        assert_eq!(pressed(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Key::End));
        assert_eq!((pressed(KeyCode::Char('c'), plain), pressed(KeyCode::Esc, plain)), (None, Some(Key::End)));
        assert_eq!(meant(&Event::Resize(80, 24)), Some(Key::Redraw));
    }
}
