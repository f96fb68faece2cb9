{{/* The pod of a worker, for both kinds of sets. */}}

{{/* At most one on a node, unless worker.affinity says something of its own about that. */}}
{{- define "woolly.worker.affinity" -}}
{{- $affinity := deepCopy .Values.worker.affinity -}}
{{- $how := .Values.worker.antiAffinity -}}
{{- if and (ne $how "none") (not (hasKey $affinity "podAntiAffinity")) -}}
{{- $others := dict "matchLabels" (include "woolly.selector" (list . "worker") | fromYaml) -}}
{{- $term := dict "labelSelector" $others "topologyKey" "kubernetes.io/hostname" -}}
{{- if eq $how "required" -}}
{{- $_ := set $affinity "podAntiAffinity" (dict "requiredDuringSchedulingIgnoredDuringExecution" (list $term)) -}}
{{- else -}}
{{- $preferred := dict "weight" 100 "podAffinityTerm" $term -}}
{{- $_ := set $affinity "podAntiAffinity" (dict "preferredDuringSchedulingIgnoredDuringExecution" (list $preferred)) -}}
{{- end -}}
{{- end -}}
{{- toYaml $affinity -}}
{{- end -}}

{{- define "woolly.worker.pod" -}}
{{- $worker := .Values.worker -}}
{{- $maps := and .Values.model.path .Values.model.source.onWorkers -}}
metadata:
  labels:
    {{- include "woolly.labels" (list . "worker") | nindent 4 }}
    {{- with $worker.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    kubectl.kubernetes.io/default-container: worker
    {{- with $worker.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "woolly.serviceAccount" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- toYaml .Values.podSecurityContext | nindent 4 }}
  # No preStop hook: SIGTERM is the drain. The worker tells the coordinator that it leaves, goes on computing until others
  # have its layers, at most leaveTimeoutSeconds, and ends by itself; a hook could only wait beside that.
  terminationGracePeriodSeconds: {{ add $worker.leaveTimeoutSeconds 30 }}
  {{- $affinity := include "woolly.worker.affinity" . | fromYaml }}
  {{- with include "woolly.scheduling" (dict "of" (mergeOverwrite (deepCopy $worker) (dict "affinity" $affinity))) | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with $worker.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: worker
      image: {{ include "woolly.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      command: [woolly-worker]
      args:
        - join
        # Looked up anew at every attempt: a coordinator that comes back has another address.
        - {{ include "woolly.coordinator" . }}.{{ .Release.Namespace }}.svc:7400
        - --join-secret-file=/run/woolly/join/{{ .Values.joinSecret.key }}
        - --listen={{ include "woolly.listen" (list . 7401) }}
        - --advertise={{ ternary "[$(POD_IP)]" "$(POD_IP)" (eq .Values.ipFamily "IPv6") }}:7401
        - --name=$(POD_NAME)
        - --memory={{ include "woolly.worker.allowance" . }}
        {{- with $worker.memory.kv }}
        - --kv-memory={{ include "woolly.bytes" . }}
        {{- end }}
        {{- with $worker.threads }}
        - --threads={{ . }}
        {{- end }}
        {{- if $maps }}
        - --model-dir=/models
        {{- end }}
        - --leave-timeout={{ $worker.leaveTimeoutSeconds }}s
        {{- range $worker.extraArgs }}
        - {{ . | quote }}
        {{- end }}
      env:
        - name: WOOLLY_STATE_DIR
          value: /var/lib/woolly/worker
        - name: POD_IP
          valueFrom:
            fieldRef:
              fieldPath: status.podIP
        - name: POD_NAME
          valueFrom:
            fieldRef:
              fieldPath: metadata.name
        {{- with $worker.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - name: quic
          containerPort: 7401
          protocol: UDP
      {{- include "woolly.probes" (dict "root" . "program" "woolly-worker") | nindent 6 }}
      resources:
        {{- toYaml $worker.resources | nindent 8 }}
      securityContext:
        {{- toYaml .Values.securityContext | nindent 8 }}
      volumeMounts:
        - name: slices
          mountPath: /var/lib/woolly
        - name: join
          mountPath: /run/woolly/join
          readOnly: true
        {{- if $maps }}
        - name: source
          mountPath: /models
          readOnly: true
        {{- end }}
        {{- with $worker.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    {{- if eq $worker.sliceCache.type "emptyDir" }}
    - name: slices
      emptyDir:
        sizeLimit: {{ $worker.sliceCache.size }}
    {{- end }}
    {{- if $maps }}
    {{- include "woolly.model.volume" . | nindent 4 }}
    {{- end }}
    - name: join
      secret:
        secretName: {{ include "woolly.secret.join" . }}
        defaultMode: 0440
    {{- with $worker.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* Claims of either kind. */}}
{{- define "woolly.worker.claims" -}}
{{- with .Values.worker.sliceCache -}}
persistentVolumeClaimRetentionPolicy:
  whenDeleted: {{ .whenDeleted }}
  whenScaled: {{ .whenScaled }}
volumeClaimTemplates:
  {{- include "woolly.claim" (dict "name" "slices" "of" .) | nindent 2 }}
{{- end -}}
{{- end -}}
