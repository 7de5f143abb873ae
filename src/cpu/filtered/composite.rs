//! The second pass of components with several answers: weights become coefficients of pixels.

use super::pass::{Block, Pass};
use super::sums::{Apply, Sums};
use crate::cpu::chunks::exact_chunks;
use crate::cpu::dense::accumulate::{Accumulate, Flush, Term};
use crate::cpu::dense::arithmetic::TILES;
use crate::cpu::dense::online_softmax::{Normalise, Softmax};
use crate::cpu::job::Job;
use crate::cpu::tile::{Pixel, Tile};
use crate::simd::{F32x16, Kernel, Vector};

/// Groups of images, under a view each, whose weighted pixels are summed in float32 before they are added to others in float64.
const GROUPS: usize = 8;

/// Sums of centred pixels with the weights and responses of all components, `[channel][row][column]`.
pub(super) struct Composite<'a> {
    /// Per probe what turns energies into weights: shifts and scales of the components.
    pub(super) normalisers: &'a [(Vec<f32>, Vec<f32>)],
    pub(super) response: &'a Sums,
    /// Places that responses tell apart: pixels, or values.
    pub(super) places: usize,
    /// Values of an image.
    pub(super) len: usize,
    pub(super) components: usize,
}

/// The working space of a thread.
#[derive(Debug, Default)]
pub(super) struct Space {
    /// `[tile][component]`, each at its [`Sums::place`].
    weights: Vec<F32x16>,
    /// Those of a row of components.
    row: Vec<F32x16>,
    /// Whether any weight of the group counts.
    any: bool,
    /// `[tile][place]`.
    coefficients: Vec<F32x16>,
    line: Vec<F32x16>,
}

/// What the pass keeps for a probe.
#[derive(Debug, Default)]
pub(super) struct State {
    sums: Vec<f32>,
    totals: Vec<f64>,
    /// Groups since sums were added to totals.
    pending: usize,
}

/// What is taken off posterior weights, and what is left of those below it: nothing. Their products with small responses would be
/// subnormal, with which processors are slow.
const SMALL: f32 = 1e-20;

struct LeaveOutSmall<'a> {
    weights: &'a mut [F32x16],
}

impl Kernel for LeaveOutSmall<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        for weights in self.weights {
            V::load(weights).sub(V::splat(SMALL)).max(V::splat(0.0)).store(weights);
        }
    }
}

impl Composite<'_> {
    /// Bytes of the working space of a thread.
    pub(super) fn workspace(response: &Sums, components: usize, places: usize) -> usize {
        let plane = response.plane_len(components);
        (TILES * (plane + places) + plane) * size_of::<F32x16>()
    }
}

impl Pass for Composite<'_> {
    type Space = Space;
    type State = State;
    type Partial = Vec<f64>;
    type Total = Vec<f64>;

    fn start(&self, state: &mut State, _negligible: f32) {
        state.pending = 0;
        state.sums.clear();
        state.sums.resize(self.len, 0.0);
        state.totals.clear();
        state.totals.resize(self.len, 0.0);
    }

    fn start_group(&self, space: &mut Space) {
        space.weights.resize(TILES * self.response.plane_len(self.components), F32x16::ZERO);
        space.coefficients.resize(TILES * self.places, F32x16::ZERO);
        space.any = false;
    }

    fn add<P: Pixel>(
        &self,
        job: &Job<'_, P>,
        probe: usize,
        block: &Block<'_, P>,
        space: &mut Space,
        _state: &mut State,
    ) {
        let (shift, scale) = &self.normalisers[probe];
        let components = block.first..block.first + block.part.len();
        let softmax = Softmax {
            shift: &shift[components.clone()],
            scale: &scale[components.clone()],
            logit_scale: block.logit_scale,
            cutoff: job.dense_cutoff as f32,
        };
        for tile in 0..block.tiles.len() {
            let (energies, columns, active) = (block.of_tile(tile), components.len(), &mut [false]);
            let plane = &mut space.weights[tile * self.response.plane_len(self.components)..];
            space.row.resize(columns, F32x16::ZERO);
            let weights = if self.response.is_spread() {
                &mut space.row[..]
            } else {
                &mut plane[self.response.place(block.first)..][..columns]
            };
            if job.isa.run(Normalise { energies, softmax, columns, active, weights: &mut *weights }) {
                space.any = true;
                job.isa.run(LeaveOutSmall { weights: &mut *weights });
            } else {
                weights.fill(F32x16::ZERO);
            }
            if self.response.is_spread() {
                for (k, weight) in components.clone().zip(&space.row) {
                    plane[self.response.place(k)] = *weight;
                }
            }
        }
    }

    fn end_group<P: Pixel>(&self, job: &Job<'_, P>, tiles: &[Tile<P>], space: &mut Space, state: &mut State) {
        if !space.any {
            return;
        }
        let values = &space.weights[..tiles.len() * self.response.plane_len(self.components)];
        let out = &mut space.coefficients[..tiles.len() * self.places];
        let (sums, line) = (self.response, &mut space.line);
        job.isa.run(Apply { sums, values, out: &mut *out, tiles: tiles.len(), line });
        let mut terms: [Term<'_, P>; TILES] = [(&tiles[0], &[]); TILES];
        for (term, of_tile) in terms.iter_mut().zip(tiles.iter().zip(exact_chunks(out, self.places))) {
            *term = of_tile;
        }
        let (terms, sums) = (&terms[..tiles.len()], &mut state.sums);
        job.isa.run(Accumulate { terms, first: 0, plane: self.places, sums });
        state.pending += 1;
        if state.pending == GROUPS {
            state.pending = 0;
            job.isa.run(Flush { sums: &mut state.sums, totals: &mut state.totals });
        }
    }

    fn finish<P: Pixel>(&self, job: &Job<'_, P>, state: &mut State) -> Vec<f64> {
        job.isa.run(Flush { sums: &mut state.sums, totals: &mut state.totals });
        state.totals.clone()
    }

    fn merge(&self, total: &mut Vec<f64>, sums: Vec<f64>) {
        total.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
    }
}
