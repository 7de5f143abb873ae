//! The second pass of components with several answers: weights become coefficients of pixels.

use super::pass::{Block, Pass};
use super::sums::{Apply, Sums};
use crate::cpu::chunks::exact_chunks;
use crate::cpu::dense::accumulate::{Accumulate, Flush, Term};
use crate::cpu::dense::arithmetic::TILES;
use crate::cpu::dense::online_softmax::{Normalise, Softmax};
use crate::cpu::job::Job;
use crate::cpu::tile::{Pixel, Tile};
use crate::simd::F32x16;

/// Groups of images, under a view each, whose weighted pixels are summed in float32 before they are added to others in float64.
const GROUPS: usize = 8;

/// Sums of centred pixels with the weights and responses of all components, `[channel][row][column]`.
pub(super) struct Composite<'a> {
    /// Per probe what turns energies into weights: shifts and scales of the components.
    pub(super) normalisers: &'a [(Vec<f32>, Vec<f32>)],
    pub(super) response: &'a Sums,
    /// Rows and columns of images.
    pub(super) size: [usize; 2],
    /// Places that responses tell apart: pixels, or values.
    pub(super) places: usize,
    /// Values of an image.
    pub(super) len: usize,
    pub(super) components: usize,
}

/// What the pass keeps for a probe.
#[derive(Debug, Default)]
pub(super) struct State {
    /// `[tile][component]`, each at its [`Sums::place`].
    weights: Vec<F32x16>,
    /// Those of a row of components.
    row: Vec<F32x16>,
    /// Whether any weight of the group counts.
    any: bool,
    /// `[tile][place]`.
    coefficients: Vec<F32x16>,
    across: Vec<F32x16>,
    sums: Vec<f32>,
    totals: Vec<f64>,
    /// Groups since sums were added to totals.
    pending: usize,
}

impl Pass for Composite<'_> {
    type State = State;
    type Partial = Vec<f64>;
    type Total = Vec<f64>;

    fn start(&self, state: &mut State, _negligible: f32) {
        state.weights.resize(TILES * self.response.plane_len(self.components), F32x16::ZERO);
        state.coefficients.resize(TILES * self.places, F32x16::ZERO);
        (state.any, state.pending) = (false, 0);
        state.sums.clear();
        state.sums.resize(self.len, 0.0);
        state.totals.clear();
        state.totals.resize(self.len, 0.0);
    }

    fn add<P: Pixel>(&self, job: &Job<'_, P>, probe: usize, block: &Block<'_, P>, state: &mut State) {
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
            state.row.resize(columns, F32x16::ZERO);
            if job.isa.run(Normalise { energies, softmax, columns, active, weights: &mut state.row }) {
                state.any = true;
            } else {
                state.row.fill(F32x16::ZERO);
            }
            let plane = &mut state.weights[tile * self.response.plane_len(self.components)..];
            for (k, weight) in components.clone().zip(&state.row) {
                plane[self.response.place(k)] = *weight;
            }
        }
    }

    fn end_group<P: Pixel>(&self, job: &Job<'_, P>, tiles: &[Tile<P>], state: &mut State) {
        if !std::mem::take(&mut state.any) {
            return;
        }
        let values = &state.weights[..tiles.len() * self.response.plane_len(self.components)];
        let out = &mut state.coefficients[..tiles.len() * self.places];
        let (sums, size, across) = (self.response, self.size, &mut state.across);
        job.isa.run(Apply { sums, size, values, out: &mut *out, tiles: tiles.len(), across });
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
