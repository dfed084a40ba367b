/** drover's public surface. */

export { type QuantizeModelOptions, type QuantizeModelReport, quantizeModel } from './convert/quantize.js'
export type { RecommenderType } from './convert/recommender.js'
export type { CpuInfo } from './device/native.js'
export { DroverError, type ErrorCode, errorCodes } from './errors.js'
export { compareModels, type ModelComparison } from './generate/compare.js'
export type { FinishReason, GeneratedToken, Generation, GenerationResult, TopLogprob } from './generate/generation.js'
export {
  LanguageModel,
  type LanguageModelInfo,
  type LanguageModelOptions,
  loadLanguageModel,
} from './generate/model.js'
export type { GenerateOptions } from './generate/options.js'
export type { WeightType } from './generate/weights.js'
export type { LayerFormat } from './model/open-recommender.js'
export type { Bags, IndexPolicy } from './program/bags.js'
export type { PartCost } from './recommend/choose.js'
export type { LabelCounts, LayerDifference, TableDifference } from './recommend/compare.js'
export type { PredictionQuality } from './recommend/metrics.js'
export type { RecommenderOptions, ScoreOptions, SwapOptions } from './recommend/options.js'
export { loadRecommender, Recommender } from './recommend/recommender.js'
export type { ScoreRequest } from './recommend/request.js'
export type { HistogramReport, RecommenderStats } from './recommend/stats.js'
export { validateRecommender } from './recommend/validate.js'
export type {
  Formats,
  JudgedNet,
  QualityChange,
  ValidatedNet,
  ValidateOptions,
  ValidationChoice,
  ValidationReport,
} from './recommend/validation.js'
export type { RecommenderInfo, TableInfo } from './recommend/version.js'
export type { ChatMessage, ChatOptions } from './text/chat.js'
export { loadTokenizer } from './text/load.js'
export type { EncodeOptions, Tokenizer } from './text/tokenizer.js'
export { version } from './version.js'
