//! What the demo shows: a few lines that renew themselves on a terminal, and plain lines everywhere else.

use std::{io::Write, time::Duration};

use super::{
    DemoError,
    checks::{Agreement, Saved},
};
use crate::sandbox::traffic::Read;

/// Where nobody looks on, a line so often.
const PLAIN: Duration = Duration::from_secs(2);

/// The state of things.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Figures {
    pub(super) time: Duration,
    pub(super) objects: usize,
    pub(super) upstream: Read,
    pub(super) saved: Saved,
    pub(super) consumers: usize,
    pub(super) events: u64,
    pub(super) bytes: u64,
    pub(super) latency: Option<(Duration, Duration)>,
    /// Ready, and all.
    pub(super) verdicts: (usize, usize),
}

/// See the module's documentation.
pub(super) struct Screen<W> {
    out: W,
    terminal: bool,
    /// Lines that the next picture goes over.
    drawn: usize,
    last: Option<Figures>,
    shown: Option<Duration>,
}

impl<W: Write> Screen<W> {
    pub(super) fn new(out: W, terminal: bool) -> Self {
        Self {
            out,
            terminal,
            drawn: 0,
            last: None,
            shown: None,
        }
    }

    /// Something that stays.
    pub(super) fn say(&mut self, text: &str) {
        self.drawn = 0;
        // Who has closed the output has seen enough.
        let _ = writeln!(self.out, "{text}");
        let _ = self.out.flush();
    }

    /// While not all is listed.
    pub(super) fn progress(&mut self, time: Duration, missing: &str) {
        let line = format!("{:>4} s  listing {missing}", time.as_secs());
        if self.terminal {
            self.draw(&[line]);
        } else if self.is_due(time) {
            self.say(&line);
        }
    }

    /// How things are.
    pub(super) fn show(&mut self, figures: &Figures) {
        let rates = self.rates(figures);
        if self.terminal {
            self.draw(&picture(figures, rates));
        } else if self.is_due(figures.time) {
            let (incoming, outgoing) = rates;
            self.say(&format!(
                "{:>4} s  {} objects, events/s {incoming:.0} in, {outgoing:.0} out, {} consumers, \
                 {} upstream watches, saved {} watches and {}",
                figures.time.as_secs(),
                figures.objects,
                figures.consumers,
                figures.upstream.watches,
                figures.saved.watches,
                size(figures.saved.bytes as u64),
            ));
        }
    }

    /// How it was, and whether all agreed.
    pub(super) fn conclude(&mut self, figures: &Figures, agreed: &Result<Agreement, DemoError>) {
        let seconds = figures.time.as_secs_f64().max(0.001);
        let mut text = format!(
            "\nAfter {seconds:.0} s:\n  \
             upstream   {} watches, never two of one kind; {} events and objects, {}\n  \
             consumers  {} over gRPC; {} events, {} of JSON\n  \
             saved      {} watches and {} that the API server did not have to send\n",
            figures.upstream.watches,
            figures.upstream.events,
            size(figures.upstream.bytes as u64),
            figures.consumers,
            figures.events,
            size(figures.bytes),
            figures.saved.watches,
            size(figures.saved.bytes as u64),
        );
        if let Some((median, longest)) = figures.latency {
            text.push_str(&format!(
                "  latency    from a write to a consumer's copy {} (median), {} (longest)\n",
                millis(median),
                millis(longest)
            ));
        }
        text.push_str(&match agreed {
            Ok(agreement) => format!(
                "  agreed     {} kinds with {} objects, and {} consumers' copies: all the same as the API server's",
                agreement.kinds, agreement.objects, agreement.copies
            ),
            Err(error) => format!("  BROKEN     {error}"),
        });
        self.say(&text);
    }

    /// Events in a second, in and out.
    fn rates(&mut self, figures: &Figures) -> (f64, f64) {
        let rates = self.last.as_ref().map(|last| {
            let seconds = (figures.time.saturating_sub(last.time))
                .as_secs_f64()
                .max(0.001);
            let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
            (
                rate(figures.upstream.events as u64, last.upstream.events as u64),
                rate(figures.events, last.events),
            )
        });
        // Over two seconds, or it flickers.
        let old = self
            .last
            .as_ref()
            .is_none_or(|last| figures.time >= last.time + PLAIN);
        if old {
            self.last = Some(figures.clone());
        }
        rates.unwrap_or_default()
    }

    fn is_due(&mut self, time: Duration) -> bool {
        let due = self.shown.is_none_or(|shown| time >= shown + PLAIN);
        if due {
            self.shown = Some(time);
        }
        due
    }

    fn draw(&mut self, lines: &[String]) {
        let mut text = String::new();
        if self.drawn > 0 {
            text.push_str(&format!("\x1b[{}A", self.drawn));
        }
        for line in lines {
            text.push_str(&format!("\x1b[2K{line}\n"));
        }
        self.drawn = lines.len();
        let _ = self.out.write_all(text.as_bytes());
        let _ = self.out.flush();
    }
}

fn picture(figures: &Figures, (incoming, outgoing): (f64, f64)) -> Vec<String> {
    let latency = figures.latency.map_or_else(
        || "-".to_owned(),
        |(median, longest)| format!("{} median, {} longest", millis(median), millis(longest)),
    );
    let (ready, judged) = figures.verdicts;
    vec![
        format!("{:>4} s", figures.time.as_secs()),
        format!(
            "  cache      {} objects, {ready} of {judged} ready",
            figures.objects
        ),
        format!("  events/s   {incoming:.0} in, {outgoing:.0} out"),
        format!(
            "  consumers  {}, write to copy {latency}",
            figures.consumers
        ),
        format!(
            "  upstream   {} watches, {}",
            figures.upstream.watches,
            size(figures.upstream.bytes as u64)
        ),
        format!(
            "  saved      {} watches, {}",
            figures.saved.watches,
            size(figures.saved.bytes as u64)
        ),
    ]
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{} kB", bytes / 1000),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(seconds: u64, events: u64) -> Figures {
        Figures {
            time: Duration::from_secs(seconds),
            events,
            consumers: 24,
            ..Figures::default()
        }
    }

    fn shown(terminal: bool, all: &[Figures]) -> String {
        let mut screen = Screen::new(Vec::new(), terminal);
        for figures in all {
            screen.show(figures);
        }
        String::from_utf8(screen.out).unwrap()
    }

    #[test]
    fn where_nobody_looks_on_there_are_plain_lines() {
        let text = shown(false, &[figures(1, 0), figures(2, 100), figures(4, 400)]);
        assert!(!text.contains('\x1b'), "{text}");
        assert_eq!(text.lines().count(), 2, "one in two seconds: {text}");
        assert!(text.contains("133 out"), "400 events in 3 seconds: {text}");
    }

    #[test]
    fn on_a_terminal_the_picture_renews_itself() {
        let text = shown(true, &[figures(1, 0), figures(2, 0)]);
        assert!(
            text.contains("\x1b[6A"),
            "it goes back over its six lines: {text:?}"
        );
    }

    #[test]
    fn a_failure_is_not_to_be_overlooked() {
        let mut screen = Screen::new(Vec::new(), false);
        let broken = Err(DemoError::Broken(vec![
            "pods is watched 2 times upstream".to_owned(),
        ]));
        screen.conclude(&figures(9, 1), &broken);
        let text = String::from_utf8(screen.out).unwrap();
        assert!(
            text.contains("BROKEN     pods is watched 2 times upstream"),
            "{text}"
        );
    }

    #[test]
    fn sizes_are_for_people() {
        assert_eq!(size(9_999), "9999 B");
        assert_eq!(size(12_345), "12 kB");
        assert_eq!(size(12_345_678), "12.3 MB");
    }
}
