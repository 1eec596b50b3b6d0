//! What comes over a connection before HTTP is spoken: the frames of HTTP/2 that are counted, however they are cut up.

use std::io::ErrorKind;

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::kubernetes::paused;
use crate::patience::{PREFACE, Patient};

const MOST: usize = 32;

/// The first byte says how long the pieces are, the others are the frames. All of it comes through, or it is cut off
/// where settings change, or pings are answered, too often.
pub(super) fn frames(data: &[u8]) {
    let Some((&piece, frames)) = data.split_first() else {
        return;
    };
    paused(async {
        let said = [PREFACE, frames].concat();
        let (mut client, server) = duplex(1 << 16);
        let pieces = said.clone();
        let saying = async move {
            for piece in pieces.chunks(usize::from(piece).max(1)) {
                if client.write_all(piece).await.is_err() {
                    break;
                }
            }
        };
        let hearing = async move {
            let mut server = Patient::new(server);
            let mut heard = Vec::new();
            let end = server.read_to_end(&mut heard).await;
            (heard, end.map_err(|error| error.kind()))
        };
        let ((), (heard, end)) = tokio::join!(saying, hearing);
        if control(frames) > MOST {
            assert_eq!(end, Err(ErrorKind::Other), "{} bytes came", heard.len());
        } else {
            assert_eq!(end, Ok(said.len()));
            assert_eq!(heard, said);
        }
    });
}

/// How many frames of these, of which the header has come, change settings or answer a ping.
fn control(mut frames: &[u8]) -> usize {
    let mut count = 0;
    while let Some((header, rest)) = frames.split_at_checked(9) {
        count += usize::from(matches!((header[3], header[4] & 1), (4, 0) | (6, 1)));
        let payload = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        frames = rest.get(payload as usize..).unwrap_or_default();
    }
    count
}
