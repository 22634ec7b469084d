//go:build tools
// +build tools

// Package tools names the programs that scripts/backends builds, so that go.mod and go.sum
// cover all that they need. It is never compiled.
package tools

import (
	_ "github.com/nsqio/nsq/apps/nsqadmin"
	_ "github.com/nsqio/nsq/apps/nsqd"
	_ "github.com/nsqio/nsq/apps/nsqlookupd"
)
