//go:build dubbo14

package main

import "github.com/apache/dubbo-go/protocol/dubbo"

// dubbo-go 1.4 takes the settings of its protocol from files only, and falls over
// without them; later versions have these by default.
func init() {
	dubbo.SetClientConf(dubbo.GetDefaultClientConfig())
	dubbo.SetServerConfig(dubbo.GetDefaultServerConfig())
}
