//! The source text of the kernels, as NVRTC compiles it.

/// The kernels that are compiled together, into one module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum KernelSource {
    /// All passes over square windows; those of float64 have no scan.
    DenseSquare {
        /// Whether images are no wider than a warp.
        narrow: bool,
        /// Of energies.
        precision: Precision,
    },
    /// All passes over masks; those of float64 have no scan.
    DenseMasks {
        /// Of energies.
        precision: Precision,
    },
    /// Both passes of the full window.
    Full,
    /// The float64 sums over candidates.
    Sparse,
    /// What happens before, between and after the passes.
    Posterior,
    /// What a posterior is asked besides the composite, over planes of float64.
    Planes,
}

/// The numbers that energies of windows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Precision {
    /// float32.
    Single,
    /// float64.
    Double,
}

impl Precision {
    /// Both of them.
    pub(super) const ALL: [Self; 2] = [Self::Single, Self::Double];

    /// Bytes of a number.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::Single => 4,
            Self::Double => 8,
        }
    }
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
    pub(crate) const ALL: [Self; 10] = [
        Self::DenseSquare { narrow: true, precision: Precision::Single },
        Self::DenseSquare { narrow: true, precision: Precision::Double },
        Self::DenseSquare { narrow: false, precision: Precision::Single },
        Self::DenseSquare { narrow: false, precision: Precision::Double },
        Self::DenseMasks { precision: Precision::Single },
        Self::DenseMasks { precision: Precision::Double },
        Self::Full,
        Self::Sparse,
        Self::Posterior,
        Self::Planes,
    ];

    /// The name in messages and of files in the cache.
    pub(crate) fn name(self) -> String {
        let file = match self {
            Self::DenseSquare { .. } => "dense_square",
            Self::DenseMasks { .. } => "dense_masks",
            Self::Full => "full",
            Self::Sparse => "sparse",
            Self::Posterior => "posterior",
            Self::Planes => "planes",
        };
        format!("{file}{}", self.variant())
    }

    /// What sets it apart from others of the same files.
    fn variant(self) -> String {
        let width = match self {
            Self::DenseSquare { narrow: true, .. } => "_narrow",
            Self::DenseSquare { narrow: false, .. } => "_wide",
            Self::DenseMasks { .. } | Self::Full | Self::Sparse | Self::Posterior | Self::Planes => "",
        };
        let precision = match self.precision() {
            Precision::Single => "",
            Precision::Double => "_double",
        };
        format!("{width}{precision}")
    }

    /// What the names of its kernels end in.
    pub(super) fn suffix(self, pixels: PixelKind) -> String {
        let pixels = match pixels {
            PixelKind::U8 => "u8",
            PixelKind::F32 => "f32",
        };
        format!("{pixels}{}", self.variant())
    }

    /// Whether its kernels keep their workspace in dynamic shared memory.
    pub(super) fn has_workspace(self) -> bool {
        matches!(self, Self::DenseSquare { .. } | Self::DenseMasks { .. })
    }

    fn precision(self) -> Precision {
        match self {
            Self::DenseSquare { precision, .. } | Self::DenseMasks { precision } => precision,
            Self::Full | Self::Sparse | Self::Posterior | Self::Planes => Precision::Single,
        }
    }

    /// The text that is compiled for one kind of pixels.
    pub(crate) fn text(self, pixels: PixelKind) -> String {
        let pixel = match pixels {
            PixelKind::U8 => "unsigned char",
            PixelKind::F32 => "float",
        };
        let real = match self.precision() {
            Precision::Single => "float",
            Precision::Double => "double",
        };
        let narrow = matches!(self, Self::DenseSquare { narrow: true, .. });
        let suffix = self.suffix(pixels);
        let defines = format!(
            "#define PIXEL {pixel}\n#define REAL {real}\n#define NARROW {narrow}\n\
             #define NAMED(name) name##_{suffix}\n"
        );
        let files = self.files().iter().map(|File { name, text }| format!("#line 1 \"{name}\"\n{text}\n"));
        std::iter::once(defines).chain(files).collect()
    }

    fn files(self) -> &'static [File] {
        match self {
            Self::DenseSquare { precision: Precision::Single, .. } => {
                &[file!("common.cu"), file!("box_sums.cu"), file!("dense_square.cu"), file!("scan_square.cu")]
            }
            Self::DenseSquare { precision: Precision::Double, .. } => {
                &[file!("common.cu"), file!("box_sums.cu"), file!("dense_square.cu")]
            }
            Self::DenseMasks { precision: Precision::Single } => {
                &[file!("common.cu"), file!("masks.cu"), file!("dense_masks.cu"), file!("scan_masks.cu")]
            }
            Self::DenseMasks { precision: Precision::Double } => {
                &[file!("common.cu"), file!("masks.cu"), file!("dense_masks.cu")]
            }
            Self::Full => &[file!("common.cu"), file!("full.cu")],
            Self::Sparse => &[file!("common.cu"), file!("sparse.cu")],
            Self::Posterior => &[file!("common.cu"), file!("posterior.cu")],
            Self::Planes => &[
                file!("common.cu"),
                file!("masks.cu"),
                file!("planes.cu"),
                file!("evidence.cu"),
                file!("statistics.cu"),
                file!("derivative.cu"),
                file!("variance.cu"),
            ],
        }
    }
}

/// NVRTC's options for an architecture. Products are fused only where the text says so, as on the CPU.
pub(crate) fn compile_options(architecture: i32) -> Vec<String> {
    vec![format!("--gpu-architecture=sm_{architecture}"), "--std=c++17".to_owned(), "--fmad=false".to_owned()]
}
