//! Sums over square windows in whole numbers.
//!
//! Values are rounded to multiples of a quantum, the smallest power of two of which the largest window sum has less than
//! 2^31. Sums of whole numbers are exact, so a window may slide: what enters is added, what leaves is taken away, two
//! additions a direction whatever the side. With floats that would leave an error behind for good. The rounding of the
//! values is no loss: it is below what a float of the size of a window's sum can tell apart (docs/accuracy.md).

use super::simd::{Lanes, Vector, Whole, WholeLanes};
use super::slide::LONGEST_SHORT;
use crate::windows::{Kind, Windows};

/// Windows of more values than this are summed as floats, as the quantum would be too coarse for each of them.
const MOST_VALUES: usize = 1 << 15;

/// The side of windows whose sums are worth whole numbers.
#[must_use]
pub fn side(windows: &Windows, channels: usize) -> Option<usize> {
    match windows.kind() {
        Kind::Square { side } if *side > LONGEST_SHORT && side * side * channels <= MOST_VALUES => Some(*side),
        Kind::Square { .. } | Kind::Masks(_) | Kind::Full => None,
    }
}

/// The quantum for window sums of magnitude up to `bound`.
#[must_use]
pub fn quantum(bound: f64) -> f32 {
    // A part in a thousand is left for the rounding of values; far below the smallest quantum no energy matters.
    const ROOM: f64 = 2_147_483_648.0 / 1.001;
    const SMALLEST: i32 = -100;
    2.0_f32.powi(((bound / ROOM).log2().ceil() as i32).max(SMALLEST))
}

/// A row of values, less whatever makes them.
pub trait Values: Sized {
    /// The first `width` columns.
    #[must_use]
    fn cut(&self, width: usize) -> Self;
    /// The values at column x.
    fn at<V: Vector>(&self, x: usize) -> V;
}

/// Window sums of sixteen images, as rows of values arrive from the top.
#[derive(Debug, Default)]
pub struct WholeSums {
    /// The last `side` rows of values; the next one takes the place of the oldest.
    ring: Vec<WholeLanes>,
    /// Sums down the last `side` rows, a column each, after one zero.
    down: Vec<WholeLanes>,
    side: usize,
    width: usize,
    /// Rows taken so far.
    seen: usize,
}

impl WholeSums {
    /// Before the first row of `width` values, for windows of `side` rows and columns.
    pub fn start(&mut self, side: usize, width: usize) {
        (self.side, self.width, self.seen) = (side, width, 0);
        self.ring.resize(self.ring.len().max(side * width), WholeLanes::ZERO);
        self.down.clear();
        self.down.resize(width + 1, WholeLanes::ZERO);
    }

    /// Takes the next row, of values in units of the quantum. If a row of windows ends there, writes to `out` `base` plus
    /// `quantum` times the sums.
    #[inline(always)]
    pub fn take<V: Vector>(&mut self, values: &impl Values, quantum: f32, base: &[Lanes], out: &mut [Lanes]) {
        if self.seen < self.side {
            self.enter::<V, false>(values);
        } else {
            self.enter::<V, true>(values);
        }
        self.seen += 1;
        if self.seen >= self.side {
            self.windows::<V>(quantum, base, out);
        }
    }

    /// Adds a row to the sums down; `FULL` says that another leaves them.
    #[inline(always)]
    fn enter<V: Vector, const FULL: bool>(&mut self, values: &impl Values) {
        let slot = self.seen % self.side;
        let ring = &mut self.ring[slot * self.width..][..self.width];
        let (down, values) = (&mut self.down[1..=ring.len()], values.cut(ring.len()));
        for x in 0..ring.len() {
            let value = values.at::<V>(x).round();
            let mut sum = V::Whole::load(&down[x]).add(value);
            if FULL {
                sum = sum.sub(V::Whole::load(&ring[x]));
            }
            value.store(&mut ring[x]);
            sum.store(&mut down[x]);
        }
    }

    #[inline(always)]
    fn windows<V: Vector>(&self, quantum: f32, base: &[Lanes], out: &mut [Lanes]) {
        let columns = self.width + 1 - self.side;
        let quantum = V::splat(quantum);
        let mut run = V::Whole::load(&WholeLanes::ZERO);
        for down in &self.down[1..self.side] {
            run = run.add(V::Whole::load(down));
        }
        let (leaving, entering) = (&self.down[..columns], &self.down[self.side..][..columns]);
        let (base, out) = (&base[..columns], &mut out[..columns]);
        for x in 0..columns {
            run = run.add(V::Whole::load(&entering[x]).sub(V::Whole::load(&leaving[x])));
            V::of_whole(run).mul_add(quantum, V::load(&base[x])).store(&mut out[x]);
        }
    }
}
