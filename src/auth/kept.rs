//! What the requests of open calls take: while they come, and then what is kept of them.
//!
//! A watch keeps what it was asked for in several forms: selectors as text and parsed, a permission for each
//! namespace, what is said of it to those who run the daemon. None of that is large for a request that is not, and a
//! caller can make all of its requests as large as they may be.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::{AuthError, calls::shed};

/// What a byte of a request takes, about. Measured over 800 watches each: 13 of label selectors, 8 of field selectors,
/// 15 of masks, 20 of namespaces.
const TIMES: usize = 16;

/// Bytes that are kept, of one caller or of all.
#[derive(Debug)]
pub(super) struct Store {
    limit: usize,
    bytes: AtomicUsize,
}

impl Store {
    /// Up to so many bytes, and the piece that goes beyond.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            bytes: AtomicUsize::new(0),
        }
    }

    /// Refuses where the limit is reached.
    pub(super) fn check(&self, who: &str) -> Result<(), AuthError> {
        let bytes = self.bytes.load(Ordering::Relaxed);
        if bytes < self.limit {
            return Ok(());
        }
        let what = format!("the requests of open calls of {who:?} take {bytes} bytes");
        Err(AuthError::TooMany(what))
    }
}

/// Of one call, until it is dropped.
#[derive(Debug)]
pub struct Kept {
    user: String,
    /// Its caller's and everybody's.
    stores: [Arc<Store>; 2],
    bytes: AtomicUsize,
}

impl Kept {
    pub(super) fn new(user: &str, stores: [&Arc<Store>; 2]) -> Self {
        Self {
            user: user.to_owned(),
            stores: stores.map(Arc::clone),
            bytes: AtomicUsize::new(0),
        }
    }

    /// So many bytes of its request more, if there is room for them.
    pub fn add(&self, bytes: usize) -> Result<(), AuthError> {
        if bytes == 0 {
            return Ok(());
        }
        let [own, all] = &self.stores;
        let checked = own.check(&self.user).and_then(|()| all.check("all"));
        checked.inspect_err(|_| shed())?;
        let bytes = bytes * TIMES;
        for store in &self.stores {
            store.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let bytes = self.bytes.load(Ordering::Relaxed);
        for store in &self.stores {
            store.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_requests_take_is_counted_until_their_calls_are_over_and_then_more_may_come() {
        let (own, other) = (Arc::new(Store::new(200)), Arc::new(Store::new(200)));
        let all = Arc::new(Store::new(340));
        let call = |own| Kept::new("alice", [own, &all]);
        let (first, second) = (call(&own), call(&own));
        assert!(first.add(5).is_ok() && second.add(10).is_ok());
        let refused = first.add(1).unwrap_err().to_string();
        assert!(
            refused.starts_with("the requests of open calls of \"alice\" take 240 bytes"),
            "{refused}"
        );
        let third = call(&other);
        assert!(third.add(7).is_ok() && third.add(1).is_err(), "all of them");
        drop(second);
        assert!(first.add(1).is_ok());
        drop((first, third));
        let bytes = [&own, &other, &all].map(|store| store.bytes.load(Ordering::Relaxed));
        assert_eq!(bytes, [0, 0, 0]);
    }
}
