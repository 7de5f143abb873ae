//! The source text of the kernels, as NVRTC compiles it.

/// The kernels that are compiled together, into one module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum KernelSource {
    /// All passes over square windows.
    DenseSquare {
        /// Whether images are no wider than a warp.
        narrow: bool,
    },
    /// All passes over masks.
    DenseMasks,
    /// Both passes of the full window.
    Full,
    /// The float64 sums over candidates.
    Sparse,
    /// What happens before, between and after the passes.
    Posterior,
}

/// What a stored pixel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum PixelKind {
    /// Bytes.
    U8,
    /// Floats.
    F32,
}

impl PixelKind {
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::F32 => 4,
        }
    }
}

/// A file of `kernels/`.
struct File {
    name: &'static str,
    text: &'static str,
}

macro_rules! file {
    ($name:literal) => {
        File { name: $name, text: include_str!(concat!("kernels/", $name)) }
    };
}

impl KernelSource {
    /// Every source.
    pub(crate) const ALL: [Self; 6] = [
        Self::DenseSquare { narrow: true },
        Self::DenseSquare { narrow: false },
        Self::DenseMasks,
        Self::Full,
        Self::Sparse,
        Self::Posterior,
    ];

    /// The name in messages and of files in the cache.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::DenseSquare { narrow: true } => "dense_square_narrow",
            Self::DenseSquare { narrow: false } => "dense_square_wide",
            Self::DenseMasks => "dense_masks",
            Self::Full => "full",
            Self::Sparse => "sparse",
            Self::Posterior => "posterior",
        }
    }

    /// What the names of its kernels end in.
    pub(super) fn suffix(self, pixels: PixelKind) -> &'static str {
        match (pixels, self) {
            (PixelKind::U8, Self::DenseSquare { narrow: true }) => "u8_narrow",
            (PixelKind::U8, Self::DenseSquare { narrow: false }) => "u8_wide",
            (PixelKind::U8, _) => "u8",
            (PixelKind::F32, Self::DenseSquare { narrow: true }) => "f32_narrow",
            (PixelKind::F32, Self::DenseSquare { narrow: false }) => "f32_wide",
            (PixelKind::F32, _) => "f32",
        }
    }

    /// Whether its kernels keep their workspace in dynamic shared memory.
    pub(super) fn has_workspace(self) -> bool {
        matches!(self, Self::DenseSquare { .. } | Self::DenseMasks)
    }

    /// The text that is compiled for one kind of pixels.
    pub(crate) fn text(self, pixels: PixelKind) -> String {
        let pixel = match pixels {
            PixelKind::U8 => "unsigned char",
            PixelKind::F32 => "float",
        };
        let narrow = self == Self::DenseSquare { narrow: true };
        let suffix = self.suffix(pixels);
        let defines = format!("#define PIXEL {pixel}\n#define NARROW {narrow}\n#define NAMED(name) name##_{suffix}\n");
        let files = self.files().iter().map(|File { name, text }| format!("#line 1 \"{name}\"\n{text}\n"));
        std::iter::once(defines).chain(files).collect()
    }

    fn files(self) -> &'static [File] {
        match self {
            Self::DenseSquare { .. } => &[file!("common.cu"), file!("box_sums.cu"), file!("dense_square.cu")],
            Self::DenseMasks => &[file!("common.cu"), file!("dense_masks.cu")],
            Self::Full => &[file!("common.cu"), file!("full.cu")],
            Self::Sparse => &[file!("common.cu"), file!("sparse.cu")],
            Self::Posterior => &[file!("common.cu"), file!("posterior.cu")],
        }
    }
}

/// NVRTC's options for an architecture. Products are fused only where the text says so, as on the CPU.
pub(crate) fn compile_options(architecture: i32) -> Vec<String> {
    vec![format!("--gpu-architecture=sm_{architecture}"), "--std=c++17".to_owned(), "--fmad=false".to_owned()]
}
