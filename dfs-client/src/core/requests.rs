//! Request ids of mutations: the master keeps an answer until it hears that the id is below the lowest
//! unanswered one.

use std::collections::BTreeSet;

use dfs_proto::ids::RequestId;

/// The ids of one session.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestIds {
    last: u64,
    unanswered: BTreeSet<u64>,
}

impl RequestIds {
    pub(crate) fn take(&mut self) -> RequestId {
        self.last += 1;
        self.unanswered.insert(self.last);
        RequestId(self.last)
    }

    pub(crate) fn answered(&mut self, id: RequestId) {
        self.unanswered.remove(&id.0);
    }

    pub(crate) fn lowest_unanswered(&self) -> RequestId {
        RequestId(self.unanswered.first().copied().unwrap_or(self.last + 1))
    }

    /// What [`RequestIds::take`] will give.
    pub(crate) fn next(&self) -> RequestId {
        RequestId(self.last + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowest() {
        let mut ids = RequestIds::default();
        assert_eq!(ids.lowest_unanswered(), RequestId(1));
        let (a, b) = (ids.take(), ids.take());
        ids.answered(b);
        assert_eq!((ids.lowest_unanswered(), ids.next()), (a, RequestId(3)));
        ids.answered(a);
        assert_eq!(ids.lowest_unanswered(), RequestId(3));
    }
}
