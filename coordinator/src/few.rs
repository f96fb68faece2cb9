//! A list that has one item nearly always, and then takes no memory of its own: what one token adds.

/// Any number of items in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Few<T> {
    first: Option<T>,
    /// Those after the first.
    more: Vec<T>,
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Few { first: None, more: Vec::new() }
    }
}

impl<T> Few<T> {
    /// Adds one at the end.
    pub fn push(&mut self, item: T) {
        if self.first.is_none() {
            self.first = Some(item);
        } else {
            self.more.push(item);
        }
    }

    /// The first one.
    pub fn first(&self) -> Option<&T> {
        self.first.as_ref()
    }

    /// The last one.
    pub fn last_mut(&mut self) -> Option<&mut T> {
        self.more.last_mut().or(self.first.as_mut())
    }

    /// All in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.first.iter().chain(&self.more)
    }
}

impl<T> IntoIterator for Few<T> {
    type Item = T;
    type IntoIter = std::iter::Chain<std::option::IntoIter<T>, std::vec::IntoIter<T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.first.into_iter().chain(self.more)
    }
}

#[cfg(test)]
mod tests {
    use super::Few;

    #[test]
    fn items_keep_their_order() {
        let mut few = Few::default();
        assert_eq!((few.first(), few.iter().count()), (None, 0));
        (1..4).for_each(|item| few.push(item));
        *few.last_mut().unwrap() = 7;
        assert_eq!(few.iter().copied().collect::<Vec<_>>(), [1, 2, 7]);
        assert_eq!(few.into_iter().collect::<Vec<_>>(), [1, 2, 7]);
    }
}
