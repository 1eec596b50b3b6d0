//! The answers: pages that arrive bit by bit, and a watch's body in batches.

use super::{apply::whole_objects, *};

impl Source {
    pub(super) fn on_news(&mut self, news: News) {
        match news {
            News::Answer(Ok(response)) => {
                let Link::Sending { request, .. } = &self.link else {
                    return;
                };
                let reader = match Form::of(request) {
                    Form::List => Reader::Page(decode::Page::default()),
                    Form::Probe => Reader::Probe(decode::Page::default()),
                    Form::Watch => {
                        self.meters.watch_opened();
                        Reader::Watch {
                            lines: decode::Lines::default(),
                            checked: false,
                            open: OpenWatch::new(self.writer.shard().clone(), now()),
                        }
                    }
                };
                self.link = Link::Reading {
                    body: response.into_body(),
                    reader,
                };
                self.step(Input::Opened);
            }
            News::Answer(Err(error)) => {
                self.link = Link::Idle;
                self.step(Input::Failed((&error).into()));
            }
            News::Frame(frame) => {
                // Taken out while it is worked on, so that whatever the machine wants instead can take its place.
                let Link::Reading { body, reader } = std::mem::replace(&mut self.link, Link::Idle)
                else {
                    return;
                };
                let left = match reader {
                    Reader::Page(page) => self
                        .on_list_frame(page, frame)
                        .map(|page| (body, Reader::Page(page))),
                    Reader::Probe(page) => self
                        .on_probe_frame(page, frame)
                        .map(|page| (body, Reader::Probe(page))),
                    Reader::Watch {
                        lines,
                        checked,
                        open,
                    } => self.on_watch_frame(body, lines, checked, open, frame),
                };
                if let Some((body, reader)) = left {
                    self.link = Link::Reading { body, reader };
                }
            }
        }
    }

    /// The page, as long as it is to be read on.
    fn on_list_frame(
        &mut self,
        mut page: decode::Page,
        frame: Option<Result<Bytes, UpstreamError>>,
    ) -> Option<decode::Page> {
        match frame {
            Some(Ok(bytes)) => {
                let mut items = Vec::new();
                let pushed = page.push(&bytes, |item| items.push(self.decode(item, 0)));
                for item in items {
                    match item {
                        Ok(object) => self.pending.insert(object),
                        Err(error) => {
                            self.complain(&error);
                            self.pending.insert_unreadable(&error);
                        }
                    }
                }
                if let Err(error) = pushed {
                    self.garbled(&error);
                    return None;
                }
                self.step(Input::Bytes).then_some(page)
            }
            Some(Err(error)) => {
                self.step(Input::Failed((&error).into()));
                None
            }
            None => {
                self.on_page(page);
                None
            }
        }
    }

    fn on_page(&mut self, page: decode::Page) {
        let end = match page.finish() {
            Ok(end) => end,
            Err(error) => return self.garbled(&error),
        };
        if self.scope.metadata_only && end.kind != "PartialObjectMetadataList" {
            self.step(Input::Failed(whole_objects()));
            return;
        }
        tracing::debug!(revision = %end.revision, remaining = end.remaining, "a page is complete");
        let mut revision = end.revision;
        if self.pending.highest > revision.number() && revision.number() > 0 {
            self.unordered("the list has items that are newer than itself");
        }
        revision = self.ordered(revision);
        self.step(Input::Page {
            revision,
            next: end.next,
        });
    }

    fn on_probe_frame(
        &mut self,
        mut page: decode::Page,
        frame: Option<Result<Bytes, UpstreamError>>,
    ) -> Option<decode::Page> {
        match frame {
            Some(Ok(bytes)) => {
                if let Err(error) = page.push(&bytes, |_| ()) {
                    self.garbled(&error);
                    return None;
                }
                self.step(Input::Bytes).then_some(page)
            }
            Some(Err(error)) => {
                self.step(Input::Failed((&error).into()));
                None
            }
            None => {
                match page.finish() {
                    Ok(end) => {
                        let revision = self.ordered(end.revision);
                        self.step(Input::Probed(revision));
                    }
                    Err(error) => self.garbled(&error),
                }
                None
            }
        }
    }

    /// Applies this frame and all that can be read without waiting, up to a batch, and publishes them together.
    fn on_watch_frame(
        &mut self,
        mut body: Incoming,
        mut lines: decode::Lines,
        mut checked: bool,
        open: OpenWatch,
        frame: Option<Result<Bytes, UpstreamError>>,
    ) -> Option<(Incoming, Reader)> {
        let (mut bytes, mut events) = (0, 0);
        let mut frame = Some(frame);
        let mut kept = true;
        while kept && let Some(next) = frame {
            kept = match next {
                Some(Ok(data)) => {
                    bytes += data.len();
                    lines.push(data);
                    self.on_lines(&mut lines, &mut checked, &mut events)
                }
                Some(Err(error)) => {
                    self.flush();
                    self.step(Input::Failed((&error).into()));
                    false
                }
                None => {
                    self.flush();
                    self.step(Input::Ended {
                        whole: lines.is_whole(),
                    });
                    false
                }
            };
            frame = (bytes < BATCH_BYTES && events < BATCH_EVENTS)
                .then(|| body.frame().now_or_never())
                .flatten()
                .map(link::data);
        }
        self.flush();
        if !kept {
            self.meters.watch_closed(open.since(), now());
            return None;
        }
        Some((
            body,
            Reader::Watch {
                lines,
                checked,
                open,
            },
        ))
    }

    /// Whether the connection is still the same.
    fn on_lines(
        &mut self,
        lines: &mut decode::Lines,
        checked: &mut bool,
        events: &mut usize,
    ) -> bool {
        let received = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let received = u64::try_from(received.as_nanos()).unwrap_or(u64::MAX);
        let mut kept = self.step(Input::Bytes);
        while kept {
            kept = match lines.take() {
                Ok(Some(line)) => {
                    *events += 1;
                    self.on_line(&line, received, checked)
                }
                Ok(None) => return true,
                Err(error) => {
                    self.garbled(&error);
                    false
                }
            };
        }
        false
    }
}
