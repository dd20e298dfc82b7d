//! How long to wait for a server, and how often to ask it again.
//!
//! Does not judge errors: a [`Failure`] says itself whether asking again makes sense.

use std::time::Duration;

use super::error::HubError;

/// Time limits and retries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patience {
    /// How often a request is made before giving up. A download that gets further than before starts counting anew.
    pub attempts: u32,
    /// Pause before the second attempt; it doubles with every further one.
    pub first_delay: Duration,
    /// Longest pause, also where the server's `Retry-After` asks for more.
    pub longest_delay: Duration,
    /// Time limit for a connection.
    pub connect: Duration,
    /// Time limit for a server that sends nothing.
    pub stall: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts: 5,
            first_delay: Duration::from_millis(300),
            longest_delay: Duration::from_secs(60),
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(30),
        }
    }
}

/// An error, and whether trying again may help.
pub(super) struct Failure {
    pub(super) error: HubError,
    pub(super) again: Again,
}

/// When to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// It would fail again.
    Never,
    /// After a pause of our own choice.
    Soon,
    /// After the pause that the server asked for.
    After(Duration),
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        Self { error, again: Again::Never }
    }
}

impl Patience {
    /// Repeats `request` until it succeeds, fails for good, or has failed too often.
    pub(super) async fn persist<T>(&self, request: impl AsyncFn() -> Result<T, Failure>) -> Result<T, HubError> {
        let mut retries = self.retries();
        loop {
            match request().await {
                Ok(value) => return Ok(value),
                Err(failure) => retries.pause(failure).await?,
            }
        }
    }

    /// Counts attempts from the start.
    pub(super) fn retries(&self) -> Retries<'_> {
        Retries { patience: self, failures: 0, told: None }
    }
}

/// Counts the attempts of one request.
pub(super) struct Retries<'a> {
    patience: &'a Patience,
    failures: u32,
    /// What the last failure was.
    told: Option<String>,
}

impl Retries<'_> {
    /// Waits until it is time to try again, or gives the error back if it is not.
    pub(super) async fn pause(&mut self, failure: Failure) -> Result<(), HubError> {
        self.failures += 1;
        match self.delay(failure.again) {
            Some(delay) => {
                let text = failure.error.to_string();
                if self.is_news(&text, failure.again) {
                    tracing::warn!("{text}; trying again in {:.1} s", delay.as_secs_f32());
                } else {
                    tracing::info!("{text}; trying again in {:.1} s", delay.as_secs_f32());
                }
                self.told = Some(text);
                tokio::time::sleep(delay).await;
                Ok(())
            }
            None => Err(failure.error),
        }
    }

    /// Whether a failure is another than the last, or has a pause that may be long.
    fn is_news(&self, text: &str, again: Again) -> bool {
        matches!(again, Again::After(_)) || self.told.as_deref() != Some(text)
    }

    /// Forgets earlier failures, because there was progress.
    pub(super) fn reset(&mut self) {
        (self.failures, self.told) = (0, None);
    }

    fn delay(&self, again: Again) -> Option<Duration> {
        if self.failures >= self.patience.attempts {
            return None;
        }
        let doubled = 2u32.saturating_pow(self.failures.saturating_sub(1));
        let delay = match again {
            Again::Never => return None,
            Again::Soon => self.patience.first_delay.saturating_mul(doubled),
            Again::After(delay) => delay,
        };
        Some(delay.min(self.patience.longest_delay))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delay(failures: u32, again: Again) -> Option<Duration> {
        Retries { patience: &Patience::default(), failures, told: None }.delay(again)
    }

    #[test]
    fn pauses_double_until_patience_ends() {
        let pauses: Vec<_> = (1..=5).map(|failures| delay(failures, Again::Soon)).collect();
        let milliseconds = [300, 600, 1200, 2400].map(|pause| Some(Duration::from_millis(pause)));
        assert_eq!(pauses[..4], milliseconds);
        assert_eq!(pauses[4], None);
    }

    #[test]
    fn the_servers_wish_is_granted_up_to_the_longest_delay() {
        assert_eq!(delay(1, Again::After(Duration::from_secs(7))), Some(Duration::from_secs(7)));
        assert_eq!(delay(1, Again::After(Duration::from_secs(3600))), Some(Duration::from_secs(60)));
    }

    #[test]
    fn what_would_fail_again_is_not_tried_again() {
        assert_eq!(delay(1, Again::Never), None);
    }

    #[test]
    fn a_failure_is_told_once_and_each_pause_that_the_server_asks_for() {
        let patience = Patience::default();
        let mut retries = patience.retries();
        assert!(retries.is_news("no connection", Again::Soon));
        retries.told = Some("no connection".into());
        assert!(!retries.is_news("no connection", Again::Soon));
        assert!(retries.is_news("status 503", Again::Soon));
        assert!(retries.is_news("no connection", Again::After(Duration::from_secs(60))));
        retries.reset();
        assert!(retries.is_news("no connection", Again::Soon));
    }
}
