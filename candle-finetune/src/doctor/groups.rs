//! Which images belong together: a union-find over indices.

use std::collections::BTreeMap;

/// A partition of `0..count`, at first into single members.
#[derive(Debug, Clone)]
pub(super) struct Groups {
    parents: Vec<u32>,
    sizes: Vec<u32>,
}

impl Groups {
    pub fn new(count: usize) -> Groups {
        Groups { parents: (0..count as u32).collect(), sizes: vec![1; count] }
    }

    /// Joins the groups of two members; false where they were one already.
    pub fn join(&mut self, a: usize, b: usize) -> bool {
        let (a, b) = (self.root(a), self.root(b));
        if a == b {
            return false;
        }
        let (small, large) = if self.sizes[a] < self.sizes[b] { (a, b) } else { (b, a) };
        self.parents[small] = large as u32;
        self.sizes[large] += self.sizes[small];
        true
    }

    /// Whether two members are in one group.
    pub fn together(&self, a: usize, b: usize) -> bool {
        self.root(a) == self.root(b)
    }

    /// The member that stands for a group; at most log₂ N steps away, as the smaller group always joins the larger.
    pub fn root(&self, member: usize) -> usize {
        let mut member = member;
        while self.parents[member] as usize != member {
            member = self.parents[member] as usize;
        }
        member
    }

    /// Groups of two and more, each ascending, in the order of their first members.
    pub fn several(&self) -> Vec<Vec<usize>> {
        let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for member in 0..self.parents.len() {
            members.entry(self.root(member)).or_default().push(member);
        }
        let mut groups: Vec<Vec<usize>> = members.into_values().filter(|members| members.len() > 1).collect();
        groups.sort();
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_joined_is_together() {
        let mut groups = Groups::new(7);
        assert!(groups.join(5, 1) && groups.join(3, 5) && groups.join(6, 0));
        assert!(!groups.join(1, 3), "they were already");
        assert!(groups.together(1, 3) && !groups.together(1, 0));
        assert_eq!(groups.several(), [vec![0, 6], vec![1, 3, 5]]);
    }
}
