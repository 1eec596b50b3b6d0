//! How much of something is taken at once, together and by each address, so that no address takes all of it.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Counts it. Clones count together.
#[derive(Clone, Debug)]
pub struct Quota {
    most: usize,
    most_of_one: usize,
    taken: Arc<Mutex<Amounts>>,
}

#[derive(Debug, Default)]
struct Amounts {
    all: usize,
    of_each: HashMap<IpAddr, usize>,
}

/// What is taken, until it is dropped.
#[derive(Debug)]
pub struct Taken {
    quota: Quota,
    address: IpAddr,
    amount: usize,
}

impl Quota {
    /// So much at once, and so much of one address.
    pub fn new(most: usize, most_of_one: usize) -> Self {
        Self {
            most,
            most_of_one,
            taken: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Amounts> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So much more, if there is so much left.
    pub fn take(&self, address: IpAddr, amount: usize) -> Option<Taken> {
        let mut taken = self.lock();
        let all = taken.all.saturating_add(amount);
        let of_one = taken.of_each.get(&address).copied().unwrap_or_default();
        let of_one = of_one.saturating_add(amount);
        if all > self.most || of_one > self.most_of_one {
            return None;
        }
        taken.all = all;
        taken.of_each.insert(address, of_one);
        let quota = self.clone();
        Some(Taken {
            quota,
            address,
            amount,
        })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut taken = self.quota.lock();
        taken.all -= self.amount;
        if let Some(of_one) = taken.of_each.get_mut(&self.address) {
            *of_one -= self.amount;
            if *of_one == 0 {
                taken.of_each.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_all_there_is() {
        let quota = Quota::new(50, 30);
        let address = |last| IpAddr::from([10, 0, 0, last]);
        let first = quota.take(address(1), 25);
        assert!(first.is_some() && quota.take(address(1), 6).is_none());
        let more = quota.take(address(1), 5);
        assert!(more.is_some(), "to the last bit");
        assert!(quota.take(address(2), 21).is_none(), "all of them");
        assert!(quota.take(address(2), 20).is_some());
        drop((first, more));
        assert!(quota.lock().of_each.is_empty());
        assert!(quota.take(address(1), 30).is_some());
    }
}
