// Package batchapi serves Azure Batch's REST API on one's own machines, and the
// few routes under /gangway/v1 that Batch has no words for. It is the only place
// where Batch's types meet gangway's specifications. The launcher behind it is a
// Backend.
//
// The protocol is the data plane of Azure Batch as its public specification
// describes it (Azure/azure-rest-api-specs, specification/batch) and as its
// Python SDK speaks it; docs/batch-operations.md lists every operation.
package batchapi
