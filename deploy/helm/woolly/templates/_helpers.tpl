{{/* Names, labels, and what several templates say alike. */}}

{{- define "woolly.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "woolly.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "woolly.coordinator" -}}{{ include "woolly.fullname" . }}-coordinator{{- end -}}
{{- define "woolly.worker" -}}{{ include "woolly.fullname" . }}-worker{{- end -}}

{{/* (list . "component"): what selects its pods; never changes. */}}
{{- define "woolly.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "woolly.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* (list . "component") */}}
{{- define "woolly.labels" -}}
{{- $root := index . 0 -}}
{{ include "woolly.selector" . }}
app.kubernetes.io/part-of: woolly
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "woolly.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "woolly.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "woolly.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* Secrets: those that are named, or our own. */}}
{{- define "woolly.secret.join" -}}
{{- default (printf "%s-join" (include "woolly.fullname" .)) .Values.joinSecret.existingSecret -}}
{{- end -}}
{{- define "woolly.secret.apiKeys" -}}
{{- default (printf "%s-api-keys" (include "woolly.fullname" .)) .Values.apiKeys.existingSecret -}}
{{- end -}}
{{- define "woolly.secret.adminKey" -}}
{{- default (printf "%s-admin" (include "woolly.fullname" .)) .Values.adminKey.existingSecret -}}
{{- end -}}

{{/* (dict "root" . "name" "…" "key" "…" "value" "…"): a Secret that is made once. What the cluster has is kept, also at upgrades. */}}
{{- define "woolly.secret" -}}
{{- $found := lookup "v1" "Secret" .root.Release.Namespace .name -}}
{{- $kept := dig "data" .key "" (default (dict) $found) -}}
{{- $made := default (randAlphaNum 48) .value -}}
apiVersion: v1
kind: Secret
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "woolly.labels" (list .root "secret") | nindent 4 }}
type: Opaque
data:
  {{ .key }}: {{ ternary (b64enc $made) $kept (or (not (empty .value)) (empty $kept)) | quote }}
{{- end -}}

{{/* A size such as 16Gi in bytes. */}}
{{- define "woolly.bytes" -}}
{{- $text := toString . -}}
{{- if not (regexMatch "^[0-9]+(\\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$" $text) -}}
{{- fail (printf "%q is no size: expected a number with Ki, Mi, Gi, Ti, k, M, G or T, such as 16Gi" $text) -}}
{{- end -}}
{{- $number := regexFind "^[0-9.]+" $text | float64 -}}
{{- $factors := dict "" 1 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 -}}
{{- mulf $number (get $factors (regexFind "[A-Za-z]*$" $text)) | int64 -}}
{{- end -}}

{{/* What a worker may use in all, in bytes: given, or 80 % of its limit. */}}
{{- define "woolly.worker.allowance" -}}
{{- if .Values.worker.memory.allowance -}}
{{- include "woolly.bytes" .Values.worker.memory.allowance -}}
{{- else -}}
{{- $limit := include "woolly.bytes" .Values.worker.resources.limits.memory | int64 -}}
{{- div (mul $limit 80) 100 -}}
{{- end -}}
{{- end -}}

{{/* Refuses a worker whose memory cannot work: mapped weights count like any other memory. */}}
{{- define "woolly.worker.checkMemory" -}}
{{- $memory := .Values.worker.memory -}}
{{- $limit := include "woolly.bytes" .Values.worker.resources.limits.memory | int64 -}}
{{- $request := include "woolly.bytes" .Values.worker.resources.requests.memory | int64 -}}
{{- $allowance := include "woolly.worker.allowance" . | int64 -}}
{{- $overhead := include "woolly.bytes" $memory.overhead | int64 -}}
{{- if gt $request $limit -}}
{{- fail (printf "worker.resources: requests.memory (%d bytes) is more than limits.memory (%d)" $request $limit) -}}
{{- end -}}
{{- if gt $allowance $limit -}}
{{- fail (printf "worker.memory.allowance (%d bytes) is more than worker.resources.limits.memory (%d): the worker would be killed" $allowance $limit) -}}
{{- end -}}
{{- $kv := 0 -}}
{{- if $memory.kv -}}{{- $kv = include "woolly.bytes" $memory.kv | int64 -}}{{- end -}}
{{- if gt $kv $allowance -}}
{{- fail (printf "worker.memory.kv (%d bytes) is more than what the worker may use in all (%d: worker.memory.allowance, or 80 %% of limits.memory)" $kv $allowance) -}}
{{- end -}}
{{- if $memory.slice -}}
{{- $slice := include "woolly.bytes" $memory.slice | int64 -}}
{{- $needed := add $slice $kv $overhead -}}
{{- if lt $request $needed -}}
{{- fail (printf "worker.resources.requests.memory is %d bytes, but slice (%d), KV (%d) and overhead (%d) need %d: mapped weights count against it; raise it, or use more workers" $request $slice $kv $overhead $needed) -}}
{{- end -}}
{{- if gt (add $slice $kv) $allowance -}}
{{- fail (printf "the worker may use %d bytes (worker.memory.allowance, or 80 %% of limits.memory), but slice (%d) and KV (%d) need %d" $allowance $slice $kv (add $slice $kv)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The model: exactly one way to say it, and a file has a place. */}}
{{- define "woolly.model" -}}
{{- $model := .Values.model -}}
{{- $source := $model.source -}}
{{- if and $model.name $model.path -}}
{{- fail "model: name (a download) and path (a file of model.source) are both set: empty one of them" -}}
{{- else if $model.name -}}
{{- $model.name -}}
{{- else if $model.path -}}
{{- if and $source.hostPath $source.existingClaim -}}
{{- fail "model.source: hostPath and existingClaim are both set: empty one of them" -}}
{{- else if not (or $source.hostPath $source.existingClaim) -}}
{{- fail "model.path is set, but neither model.source.hostPath nor model.source.existingClaim says where that file is" -}}
{{- end -}}
{{- printf "/models/%s" $model.path -}}
{{- else -}}
{{- fail "no model: set model.name (hf:OWNER/REPO:QUANT) or model.path with model.source" -}}
{{- end -}}
{{- end -}}

{{/* The volume of model.source; only where model.path is set. */}}
{{- define "woolly.model.volume" -}}
- name: source
  {{- if .Values.model.source.hostPath }}
  hostPath:
    path: {{ .Values.model.source.hostPath }}
    type: Directory
  {{- else }}
  persistentVolumeClaim:
    claimName: {{ .Values.model.source.existingClaim }}
    readOnly: true
  {{- end }}
{{- end -}}

{{/* Workers that the first plan waits for. */}}
{{- define "woolly.awaited" -}}
{{- $worker := .Values.worker -}}
{{- $all := ternary (mul $worker.replicas $worker.leaderWorkerSet.groups) $worker.replicas (eq $worker.kind "LeaderWorkerSet") -}}
{{- $awaited := default $all .Values.coordinator.waitForWorkers | int -}}
{{- if gt $awaited ($all | int) -}}
{{- fail (printf "coordinator.waitForWorkers is %d, but there are %d workers: no plan would ever be made" $awaited ($all | int)) -}}
{{- end -}}
{{- if gt $awaited 64 -}}
{{- fail (printf "%d workers would be awaited, and a plan has at most 64 stages: set coordinator.waitForWorkers" $awaited) -}}
{{- end -}}
{{- $awaited -}}
{{- end -}}

{{/* An address to listen on. (list . port) */}}
{{- define "woolly.listen" -}}
{{- ternary "[::]" "0.0.0.0" (eq (index . 0).Values.ipFamily "IPv6") }}:{{ index . 1 }}
{{- end -}}

{{/* (dict "root" . "program" "woolly-…"): live while it starts, then live and ready. A startup probe that asked for `ready`
     would kill a coordinator whose workers have not come yet; `live` never depends on loading. */}}
{{- define "woolly.probes" -}}
{{- $probes := .root.Values.probes -}}
startupProbe:
  exec:
    command: [{{ .program }}, probe, live]
  periodSeconds: {{ $probes.periodSeconds }}
  timeoutSeconds: {{ $probes.timeoutSeconds }}
  failureThreshold: {{ div (add $probes.startupSeconds $probes.periodSeconds -1) $probes.periodSeconds }}
livenessProbe:
  exec:
    command: [{{ .program }}, probe, live]
  periodSeconds: {{ $probes.periodSeconds }}
  timeoutSeconds: {{ $probes.timeoutSeconds }}
  failureThreshold: {{ $probes.failureThreshold }}
readinessProbe:
  exec:
    command: [{{ .program }}, probe, ready]
  periodSeconds: {{ $probes.periodSeconds }}
  timeoutSeconds: {{ $probes.timeoutSeconds }}
  failureThreshold: 1
{{- end -}}

{{/* (dict "name" "…" "of" persistence): a claim of a StatefulSet. */}}
{{- define "woolly.claim" -}}
- metadata:
    name: {{ .name }}
    {{- with .of.annotations }}
    annotations:
      {{- toYaml . | nindent 6 }}
    {{- end }}
  spec:
    accessModes:
      {{- toYaml .of.accessModes | nindent 6 }}
    {{- with .of.storageClass }}
    storageClassName: {{ . }}
    {{- end }}
    resources:
      requests:
        storage: {{ .of.size }}
{{- end -}}

{{/* Where a pod may run. (dict "of" .Values.worker "affinity" …) */}}
{{- define "woolly.scheduling" -}}
{{- with .of.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .of.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .of.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .of.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}
