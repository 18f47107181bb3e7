//! [`Figures`]: the current numbers of a family, for parts of the server that show or judge them.

use super::families::Sample;

/// The current numbers of a family, each with the value of its label if the family has one.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Figures(Vec<Sample>);

impl Figures {
    pub(super) fn new(samples: Vec<Sample>) -> Figures {
        Figures(samples)
    }

    /// Each label with its number; for a histogram, the sum of all measured values.
    pub fn each(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|sample| (sample.label(), sample.number_or_sum()))
    }

    /// The sum of all numbers.
    pub fn total(&self) -> f64 {
        self.each().map(|(_, number)| number).sum()
    }

    /// The sum of the numbers with these labels.
    pub fn sum(&self, labels: &[&str]) -> f64 {
        self.each().filter(|(label, _)| labels.contains(label)).map(|(_, number)| number).sum()
    }

    /// The largest number.
    pub fn largest(&self) -> Option<(&str, f64)> {
        self.each().max_by(|(_, left), (_, right)| left.total_cmp(right))
    }

    /// For histograms: upper bounds in ascending order, each with the count of values up to it,
    /// over all labels. Infinity is the last bound.
    pub fn counts(&self) -> Vec<(f64, u64)> {
        let mut counts: Vec<(f64, u64)> = Vec::new();
        for cumulated in self.0.iter().filter_map(Sample::cumulated) {
            counts.resize(cumulated.len(), (f64::INFINITY, 0));
            for (sum, (bound, count)) in counts.iter_mut().zip(cumulated) {
                *sum = (bound, sum.1 + count);
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_added_and_compared_by_label() {
        let of = |label: &str, n| Sample::number(n).of(label);
        let figures = Figures::new(vec![of("a", 1), of("b", 20), of("c", 300)]);
        assert_eq!((figures.total(), figures.sum(&["a", "c", "d"]), figures.sum(&[])), (321.0, 301.0, 0.0));
        assert_eq!(figures.largest(), Some(("c", 300.0)));
        let none = Figures::default();
        assert_eq!((none.total(), none.largest(), none.counts()), (0.0, None, Vec::new()));
        assert_eq!(Figures::new(vec![Sample::number(7)]).largest(), Some(("", 7.0)));
    }

    #[test]
    fn histograms_are_added_whatever_their_label() {
        let of = |label: &str, counts: &[u64], sum| Sample::histogram([1.0, 2.0].into_iter(), counts, sum).of(label);
        let figures = Figures::new(vec![of("0", &[1, 2, 4], 9.5), of("1", &[10, 0, 0], 0.5)]);
        assert_eq!(figures.counts(), [(1.0, 11), (2.0, 13), (f64::INFINITY, 17)]);
        assert_eq!(figures.each().collect::<Vec<_>>(), [("0", 9.5), ("1", 0.5)]);
        assert_eq!(figures.largest(), Some(("0", 9.5)));
    }
}
