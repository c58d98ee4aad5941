{{/*
The sidecar, for any chart. Each takes a dict of
  name     what the ConfigMaps are called after
  sidecar  the settings, as under `sidecar` in values.yaml
and `svidecar inject` makes the same of the same settings, which a test compares.
*/}}

{{/* The name of the policy's ConfigMap; empty without a policy. */}}
{{- define "svidecar.policyName" -}}
{{- $policy := .sidecar.policy | default dict -}}
{{- if and $policy.configMap $policy.rules -}}
{{- fail "sidecar.policy: `configMap` and `rules` exclude each other" -}}
{{- end -}}
{{- if $policy.configMap -}}
{{- $policy.configMap -}}
{{- else if $policy.rules -}}
{{- .name }}-policy
{{- else if .sidecar.inbound -}}
{{- fail "sidecar.policy: nobody is let in without a policy; name its `configMap`, or write `rules`" -}}
{{- end -}}
{{- end -}}

{{/* The config file. */}}
{{- define "svidecar.config" -}}
{{- if not (or .sidecar.inbound .sidecar.outbound) -}}
{{- fail "sidecar: no listener; write `inbound` or `outbound`" -}}
{{- end -}}
{{- range $key, $_ := .sidecar.config }}
{{- if has $key (list "identity" "policy" "inbound" "outbound" "limits" "workers" "admin") }}
{{- fail (printf "sidecar.config: `%s` is made of the other values" $key) }}
{{- end }}
{{- end }}
{{- $any := .sidecar.ipv6 | ternary "[::]" "0.0.0.0" -}}
identity:
  socket: {{ printf "unix:///spiffe-workload-api/%s" .sidecar.socket | quote }}
{{- if include "svidecar.policyName" . }}
policy:
  path: /etc/svidecar/policy
{{- end }}
{{- with .sidecar.inbound }}
inbound:
{{- range . }}
- name: {{ .name | quote }}
  listen: {{ printf "%s:%d" $any (int .port) | quote }}
  {{- if has .target (list "metrics" "admin") }}
  serve: {{ .target }}
  {{- else }}
  upstream: {{ .target | quote }}
  {{- end }}
{{- end }}
{{- end }}
{{- with .sidecar.outbound }}
outbound:
{{- range . }}
- name: {{ .name | quote }}
  listen: {{ printf "127.0.0.1:%d" (int .port) | quote }}
  connect: {{ .connect | quote }}
  peer: {{ .peer | toJson }}
{{- end }}
{{- end }}
limits:
  max_connections: {{ int .sidecar.maxConnections }}
  drain_timeout: {{ int .sidecar.drainSeconds }}s
workers: 2
admin:
  listen: 127.0.0.1:15000
  probes: {{ printf "%s:15021" $any | quote }}
{{- with .sidecar.config }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The container: an item of `initContainers`, and best the first. */}}
{{- define "svidecar.container" -}}
{{- $mib := 1048576 -}}
{{- $connections := int64 .sidecar.maxConnections -}}
{{- $idle := add (mul 5 $mib) (mul $connections 3072) -}}
{{- $busy := add (mul 37 $mib) (mul $connections 40960) -}}
name: svidecar
image: {{ .sidecar.image | quote }}
restartPolicy: Always
args:
- run
- --config
- /etc/svidecar/config/svidecar.yaml
env:
- name: SPIFFE_ENDPOINT_SOCKET
  value: {{ printf "unix:///spiffe-workload-api/%s" .sidecar.socket | quote }}
ports:
- name: svidecar-probe
  containerPort: 15021
  protocol: TCP
{{- range $index, $listener := .sidecar.inbound }}
- name: svidecar-in-{{ $index }}
  containerPort: {{ int $listener.port }}
  protocol: TCP
{{- end }}
startupProbe:
  httpGet:
    path: /startupz
    port: 15021
  periodSeconds: 1
  failureThreshold: 120
livenessProbe:
  httpGet:
    path: /livez
    port: 15021
  periodSeconds: 10
  failureThreshold: 3
readinessProbe:
  httpGet:
    path: /readyz
    port: 15021
  periodSeconds: 5
  failureThreshold: 2
resources:
{{- with .sidecar.resources }}
  {{- toYaml . | nindent 2 }}
{{- else }}
  requests:
    cpu: 10m
    memory: {{ mul 8 (div (add $idle (sub (mul 8 $mib) 1)) (mul 8 $mib)) }}Mi
  limits:
    memory: {{ mul 16 (div (add $busy (sub (mul 16 $mib) 1)) (mul 16 $mib)) }}Mi
{{- end }}
securityContext:
  allowPrivilegeEscalation: false
  capabilities:
    drop:
    - ALL
  readOnlyRootFilesystem: true
  runAsGroup: 65532
  runAsNonRoot: true
  runAsUser: 65532
  seccompProfile:
    type: RuntimeDefault
volumeMounts:
- name: svidecar-spiffe
  mountPath: /spiffe-workload-api
  readOnly: true
- name: svidecar-config
  mountPath: /etc/svidecar/config
  readOnly: true
{{- if include "svidecar.policyName" . }}
- name: svidecar-policy
  mountPath: /etc/svidecar/policy
  readOnly: true
{{- end }}
{{- with .sidecar.volumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The items of `volumes`. */}}
{{- define "svidecar.volumes" -}}
- name: svidecar-spiffe
  csi:
    driver: csi.spiffe.io
    readOnly: true
- name: svidecar-config
  configMap:
    name: {{ .name }}-svidecar
{{- with include "svidecar.policyName" . }}
- name: svidecar-policy
  configMap:
    name: {{ . }}
{{- end }}
{{- end -}}

{{/* What makes new pods when the config changes: a pod annotation. A policy needs none. */}}
{{- define "svidecar.annotations" -}}
svidecar.dev/config-hash: {{ include "svidecar.config" . | sha256sum | trunc 16 | quote }}
{{- end -}}

{{/* The ConfigMaps: the config's, and the policy's where it is made of rules. */}}
{{- define "svidecar.configmaps" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .name }}-svidecar
data:
  svidecar.yaml: |
    {{- include "svidecar.config" . | nindent 4 }}
{{- if (.sidecar.policy | default dict).rules }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .name }}-policy
data:
  policy.yaml: |
    {{- dict "rules" .sidecar.policy.rules | toYaml | nindent 4 }}
{{- end }}
{{- end -}}
