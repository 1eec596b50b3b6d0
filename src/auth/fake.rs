//! An API server that says of tokens and permissions what a test told it.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::future::BoxFuture;

use super::{Attributes, Decision, Identity, ReviewError, Reviews, Token, TokenOwner};

/// See the module's documentation. Clones are the same server.
#[derive(Clone, Default)]
pub struct FakeReviews(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    tokens: HashMap<String, TokenOwner>,
    allowed: HashSet<(String, String)>,
    down: bool,
    asked: Vec<String>,
}

impl FakeReviews {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on `token` is `user`'s, for these audiences.
    pub fn give(&self, token: &str, user: &str, audiences: &[&str]) {
        let owner = TokenOwner {
            identity: Identity {
                user: user.to_owned(),
                ..Identity::default()
            },
            audiences: audiences
                .iter()
                .map(|&audience| audience.to_owned())
                .collect(),
        };
        self.lock().tokens.insert(token.to_owned(), owner);
    }

    /// From now on it is nobody's.
    pub fn take(&self, token: &str) {
        self.lock().tokens.remove(token);
    }

    /// From now on the owner of `token` is in these groups.
    pub fn group(&self, token: &str, groups: &[&str]) {
        if let Some(owner) = self.lock().tokens.get_mut(token) {
            owner.identity.groups = groups.iter().map(|&group| group.to_owned()).collect();
        }
    }

    /// From now on `user`, or whoever is in the group of that name, may do this, as [`Attributes`] prints it.
    pub fn allow(&self, user: &str, what: &str) {
        self.lock()
            .allowed
            .insert((user.to_owned(), what.to_owned()));
    }

    /// And now not any more.
    pub fn deny(&self, user: &str, what: &str) {
        self.lock()
            .allowed
            .remove(&(user.to_owned(), what.to_owned()));
    }

    /// Whether it can be reached.
    pub fn set_down(&self, down: bool) {
        self.lock().down = down;
    }

    /// What it was asked, in order: `token`, or `USER: PERMISSION`.
    pub fn asked(&self) -> Vec<String> {
        self.lock().asked.clone()
    }

    /// Forgets what it was asked.
    pub fn forget(&self) {
        self.lock().asked.clear();
    }

    fn answer<T>(
        &self,
        question: String,
        answer: impl FnOnce(&State) -> T,
    ) -> Result<T, ReviewError> {
        let mut state = self.lock();
        state.asked.push(question);
        if state.down {
            return Err(ReviewError::Unavailable("transport".to_owned()));
        }
        Ok(answer(&state))
    }
}

impl Reviews for FakeReviews {
    fn token<'a>(
        &'a self,
        token: &'a Token,
        _audience: &'a str,
    ) -> BoxFuture<'a, Result<Option<TokenOwner>, ReviewError>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            self.answer("token".to_owned(), |state| {
                state.tokens.get(token.expose()).cloned()
            })
        })
    }

    fn access<'a>(
        &'a self,
        identity: &'a Identity,
        attributes: &'a Attributes,
    ) -> BoxFuture<'a, Result<Decision, ReviewError>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            let (user, what) = (&identity.user, attributes.to_string());
            self.answer(format!("{user}: {what}"), |state| {
                let mut names = identity.groups.iter().chain([user]);
                let may = |name: &String| state.allowed.contains(&(name.clone(), what.clone()));
                match names.any(may) {
                    true => Decision::Allowed,
                    false => Decision::Denied,
                }
            })
        })
    }
}
