//! How many bytes a file may make the reader produce.

use super::error::Problem;

/// Bytes that may still be produced; views that overlap and deflated entries could otherwise multiply without end.
#[derive(Debug)]
pub(super) struct Budget {
    left: usize,
    limit: usize,
}

impl Budget {
    /// Four times the file, for tied views and compressible weights, and 1 MiB so that small files are never refused.
    pub(super) fn for_file(length: usize) -> Self {
        let limit = length.saturating_mul(4).saturating_add(1 << 20);
        Self { left: limit, limit }
    }

    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// Takes `bytes` off, before they are allocated where that can be known.
    pub(super) fn spend(&mut self, bytes: usize) -> Result<(), Problem> {
        let left = self.left.checked_sub(bytes);
        self.left = left.ok_or(Problem::TooMuchData { limit: self.limit })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spending_all_is_allowed_and_one_more_is_not() {
        let mut budget = Budget::for_file(10);
        assert!(budget.spend(40 + (1 << 20)).is_ok());
        assert!(matches!(budget.spend(1), Err(Problem::TooMuchData { limit }) if limit == 40 + (1 << 20)));
    }
}
